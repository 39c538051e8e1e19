"""Pictures and sounds as codes of a trained run: the run is copied, its codes are equal, and they are decoded again."""

import os
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from chopmix.commands.cli import main
from chopmix.experiment.run import load_run, open_part
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.settings.document import ConfigError
from chopmix.experiment.train import train
from chopmix.files.errors import RunError
from chopmix.files.reading import DataError
from chopmix.inference import pages
from chopmix.tokenizers.base import Role
from chopmix.tokenizers.codes import CodesChopper, CodeVocabulary, Recalled
from chopmix.tokenizers.encoding.code_file import CodeFile, key_of, raw_key
from chopmix.tokenizers.media.files import picture_bytes
from chopmix.tokenizers.media.sound import WaveAugmentation
from chopmix.training.log import read_metrics
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.random import default_rng
from safetensors.torch import load_file, save_file
from tiers import only

QUANTISER = """
inputs: {image: {use: image, patch_size: 2, channels: 1, size: 8}}
model: {width: 16, depth: 1, heads: 2, context: 16, attention: same_sample}
tasks: {codes: {use: reconstruction, target: image, levels: [4, 3], depth: 1, heads: 2}}
data: {dataset: digits}
training: {steps: 20, samples_per_step: 16, learning_rate: 1e-2}
evaluation: {every: 20}
logging: {tensorboard: false}
"""
WRITER = """
inputs: {image: {use: codes, run: RUN, input: image}}
model: {width: 16, depth: 1, heads: 2, context: 17, attention: causal}
tasks: {picture: {use: language_modeling, target: image}}
data: {dataset: digits}
training: {steps: 3, samples_per_step: 8, learning_rate: 1e-2}
evaluation: {every: 3}
logging: {tensorboard: false}
"""

ENCODER = """
inputs: {image: {use: encoded, run: RUN, input: image}}
model: {width: 16, depth: 1, heads: 2, context: 17, attention: same_sample}
tasks: {digit: {use: classification, target: label}}
data: {dataset: digits}
training: {steps: 3, samples_per_step: 8, learning_rate: 1e-2}
evaluation: {every: 3}
logging: {tensorboard: false}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Yield the folder of a quantiser and of a model of its codes, both trained for a few steps."""
    folder = tmp_path_factory.mktemp("codes")
    os.environ["CHOPMIX_CACHE"] = str(folder / "cache")
    (folder / "q.yaml").write_text(QUANTISER)
    (folder / "w.yaml").write_text(WRITER.replace("RUN", str(folder / "q")))
    for name in "qw":
        train(load_config(folder / f"{name}.yaml", [f"out={folder / name}"]))
    yield folder
    del os.environ["CHOPMIX_CACHE"]


def test_reconstruction_learns_and_reports_the_use_of_its_codes(runs):
    metrics = load_run(runs / "q").evaluate("val")
    assert metrics["val/loss"] < 0.6 and 0 < metrics["val/codes_used"] <= 1
    assert 1 <= metrics["val/code_perplexity"] <= 12
    answer = load_run(runs / "q").predict([{"image": torch.zeros(1, 8, 8, dtype=torch.uint8)}])[0]["codes"]["codes"]
    assert len(answer) == 16 and all(0 <= code < 12 for code in answer)


def test_codes_are_those_of_the_run_that_was_copied(runs):
    run, other = load_run(runs / "w"), load_run(runs / "q")
    chopper = run.choppers["image"]
    pictures = [torch.full((1, 8, 8), value, dtype=torch.uint8) for value in (0, 130, 255)]
    for picture in pictures:
        codes = other.predict([{"image": picture}])[0]["codes"]["codes"]
        assert chopper.encoded(picture) == codes == chopper.vocabulary.encode(picture)
        assert chopper.chop(picture).values.tolist() == [12, *codes]
        back = chopper.vocabulary.restore(codes)
        assert back.shape == picture.shape and back.dtype == torch.uint8
        with torch.autocast("cpu", torch.bfloat16):  # as evaluations run while training
            assert chopper.vocabulary.encode(picture) == codes and chopper.vocabulary.restore(codes).equal(back)
    assert chopper.vocabulary.size == 13 and chopper.vocabulary.units(pictures[0]) == 16
    moved = runs / "alone"
    shutil.copytree(runs / "w", moved)
    shutil.move(runs / "q", runs / "gone")
    try:
        again = load_run(moved).choppers["image"]
        assert again.encoded(pictures[1]) == chopper.encoded(pictures[1])
    finally:
        shutil.move(runs / "gone", runs / "q")
    shutil.rmtree(moved / "assets/image/run")
    with pytest.raises(DataError, match="run is missing: this run needs it"):
        load_run(moved)


def test_pictures_are_written_and_shown_on_a_page(runs, capsys):
    assert main(["generate", str(runs / "w"), "--output", str(runs / "x.png"), "--count", "2", "--seed", "1"]) == 0
    assert (runs / "x-1.png").read_bytes()[:4] == b"\x89PNG" and (runs / "x-2.png").exists()
    page = (runs / "w/sheets/step-00000003.html").read_text()
    assert page.count("<img") == 2 * pages.COUNT  # generated, each beside the true one
    capsys.readouterr()
    assert main(["generate", str(runs / "w")]) == 2 and "add --output FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["inputs.image.input=picture"], "has no input 'picture'; possible: image"),
        (["inputs.image.run=RUNS/w"], r"has no codes: none of its tasks \(picture\) is reconstruction"),
        (["inputs.image.run=RUNS/none"], r"none is not a run: it has no config\.yaml"),
    ],
)
def test_runs_without_codes_are_refused(runs, capsys, changes, message):
    changes = [each.replace("RUNS", str(runs)) for each in changes]
    assert main(["train", str(runs / "w.yaml"), *changes, f"out={runs / 'bad'}"]) == 2
    import re

    assert re.search(message, capsys.readouterr().err)
    shutil.rmtree(runs / "bad", ignore_errors=True)


@pytest.mark.parametrize("how", ["codes", "encoded"])
def test_a_part_that_changed_or_has_another_format_is_reported(runs, tmp_path, capsys, how):
    """The run that is used as a part is replaced by one that was trained with another seed."""
    if how == "codes":
        shutil.copytree(runs / "w", tmp_path / "run")
    else:
        tree = ENCODER.replace("RUN", str(runs / "q"))
        (tmp_path / "e.yaml").write_text(tree)
        train(load_config(tmp_path / "e.yaml", [f"out={tmp_path / 'run'}"]))
    assert load_run(tmp_path / "run").choppers
    train(load_config(runs / "q.yaml", [f"out={tmp_path / 'q'}", "training.seed=1"]))
    part = tmp_path / "run" / "assets" / "image" / "run"
    shutil.rmtree(part)
    open_part(tmp_path / "q").write(part)
    message = "assets/image (a vocabulary, or a run used as a part) changed since the checkpoint of step 3 was written"
    with pytest.raises(RunError, match=re.escape(message)):
        load_run(tmp_path / "run")
    (part / "config.yaml").write_text((part / "config.yaml").read_text().replace("format: 3", "format: 4"))
    with pytest.raises(ConfigError, match="image/run/config.yaml +has format 4, which a newer chopmix reads"):
        load_run(tmp_path / "run")


def test_codes_that_have_collapsed_are_refused(runs, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path))
    monkeypatch.setattr(CodeVocabulary, "encode_all", lambda self, items: [[7] * self.length for _ in items])
    assert main(["train", str(runs / "w.yaml"), f"out={tmp_path / 'bad'}"]) == 2
    error = capsys.readouterr().err
    assert f"the codes of {runs / 'q'} have collapsed: all " in error and "are 7; train that run again" in error


def test_images_of_any_size_cannot_be_reconstructed(runs, capsys):
    change = ["inputs.image.size=null", "inputs.image.position=null"]
    assert main(["train", str(runs / "q.yaml"), *change, f"out={runs / 'bad'}"]) == 2
    assert "reconstruction needs the option 'size' of the image input" in capsys.readouterr().err
    shutil.rmtree(runs / "bad", ignore_errors=True)
    assert Role().generated is False


def test_codes_are_computed_once_and_training_decodes_no_pictures(runs, monkeypatch):
    """A later run encodes nothing of train or val, decodes nothing of train, and has the same losses as a run that
    decodes all pictures."""
    (file,) = (runs / "cache" / "codes").glob("*.safetensors")
    run, decode, encode, decoded, encoded = load_run(runs / "w"), CodesChopper.decode, CodeVocabulary.encode_all, [], []
    splits, chopper = [run.dataset().open(split) for split in ("train", "val")], run.choppers["image"]
    items = [[key_of(chopper.decode(split[number]["image"])) for number in range(len(split))] for split in splits]
    assert load_file(file)["ids"].shape == (len({*items[0], *items[1]}), 16)
    assert chopper.code_file.path == file, "the copied run has the same file of codes"

    def watched(self, raw):
        decoded.append(key_of(item := decode(self, raw)))
        return item

    monkeypatch.setattr(CodeVocabulary, "encode_all", lambda self, items: encoded.extend(items) or encode(self, items))
    monkeypatch.setattr(CodesChopper, "decode", watched)
    train(load_config(runs / "w.yaml", [f"out={runs / 'again'}"]))
    assert {*items[1]} <= {*decoded}, "pictures of val, which a sheet may show"
    assert len({*decoded} - {*items[1]}) <= 24, "only pictures that the summary of the data and the check read"
    assert len(encoded) == 2 * pages.COUNT, "only pictures of the sheet, generated and true ones"
    monkeypatch.undo()
    monkeypatch.setenv("CHOPMIX_CACHE", str(runs / "cache"))
    monkeypatch.setattr(CodesChopper, "read", CodesChopper.decode)
    train(load_config(runs / "w.yaml", [f"out={runs / 'decoding'}"]))
    lines = [read_metrics(runs / name / "metrics.jsonl") for name in ("w", "again", "decoding")]
    (first,), (second,), (third,) = ([line["val/loss"] for line in metrics if "val/loss" in line] for metrics in lines)
    assert first == second == third


def test_a_picture_file_that_changes_is_decoded_again(runs, tmp_path):
    chopper = load_run(runs / "w").choppers["image"]
    chopper = replace(chopper, code_file=CodeFile(tmp_path / "codes.safetensors", 16, 12))
    paths = [tmp_path / f"{name}.png" for name in "ab"]
    for value, path in zip((0, 200), paths):
        path.write_bytes(picture_bytes(torch.full((1, 8, 8), value, dtype=torch.uint8)))
    (tmp_path / "none.png").write_bytes(b"no picture")
    chopper.encode_all([*paths, tmp_path / "none.png", None])
    chopper.keep()
    again = replace(chopper, code_file=CodeFile(tmp_path / "codes.safetensors", 16, 12))
    for each in (chopper, again):
        for path in paths:
            assert isinstance(read := each.read(path), Recalled)
            assert each.encoded(read) == chopper.vocabulary.encode(chopper.decode(path))
            assert each.augment(read, default_rng(0)) == read and each.count(read) == each.count(each.decode(path))
        for raw in (tmp_path / "none.png", tmp_path / "c.png", None):
            with pytest.raises((ValueError, OSError)):
                each.read(raw)
    paths[0].write_bytes(new := picture_bytes(torch.full((1, 8, 8), 90, dtype=torch.uint8)))
    assert again.read(paths[0]).equal(again.decode(new)) and isinstance(again.read(paths[1]), Recalled)


def test_a_value_that_was_read_once_is_not_decoded_again(runs, tmp_path):
    """Also if nothing was encoded in advance, for example after a run was resumed on another machine."""
    chopper = load_run(runs / "w").choppers["image"]
    raw = (torch.arange(64, dtype=torch.uint8) * 3).view(8, 8).numpy()
    first, again = (replace(chopper, code_file=CodeFile(tmp_path / "codes.safetensors", 16, 12)) for _ in range(2))
    ids = first.encoded(first.read(raw))
    assert first.encoded(first.read(raw)) == ids and isinstance(first.read(raw), Recalled)
    first.keep()
    assert not isinstance(again.read(raw), Recalled), "it has not read the file yet"
    again.encoded(again.read(1 + raw))
    (tmp_path / "codes.safetensors").unlink()
    again.keep()
    last = replace(chopper, code_file=CodeFile(tmp_path / "codes.safetensors", 16, 12))
    assert isinstance(again.read(1 + raw), Recalled) and isinstance(last.read(1 + raw), Recalled)


def test_known_codes_are_kept_if_the_file_is_replaced(tmp_path):
    """Training continues with them, whatever another process has written into the file."""
    path, keys = tmp_path / "codes.safetensors", [bytes([number]) * 16 for number in range(3)]
    one = CodeFile(path, 1, 200)
    one.new = {keys[0]: [7]}
    one.save()
    path.unlink()
    other = CodeFile(path, 1, 200)
    other.new = {keys[1]: [8]}
    other.save()
    one.new = {keys[2]: [9]}
    one.save()
    assert [one.get(key) for key in keys] == [CodeFile(path, 1, 200).get(key) for key in keys] == [[7], [8], [9]]


SAVES = """
import sys
from pathlib import Path
from chopmix.tokenizers.encoding.code_file import CodeFile
file, first = CodeFile(Path(sys.argv[1]), 1, 200), int(sys.argv[2])
for number in range(first, first + 40):
    file.new[bytes([number]) * 16] = [number]
    file.save()
"""


@pytest.mark.system
def test_no_code_is_lost_if_processes_save_at_the_same_time(tmp_path):
    path = tmp_path / "codes.safetensors"
    several = [subprocess.Popen([sys.executable, "-c", SAVES, str(path), str(first)]) for first in (0, 40, 80)]
    assert [each.wait() for each in several] == [0, 0, 0]
    assert all(CodeFile(path, 1, 200).get(bytes([number]) * 16) == [number] for number in range(120))


RAW = st.recursive(
    st.binary(max_size=4)
    | st.integers()
    | st.floats(allow_nan=False)
    | arrays(st.sampled_from([np.uint8, np.int16, np.float32]), st.sampled_from([(2,), (1, 2), (2, 1), ()])).filter(
        lambda array: not np.isnan(array).any()
    ),
    lambda inner: st.tuples(inner, inner),
    max_leaves=3,
)


def alike(a, b) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    return all(map(alike, a, b)) if isinstance(a, tuple) else repr(a) == repr(b)


@given(RAW, RAW)
def test_raw_values_have_the_same_key_if_they_are_alike(a, b):
    assert (raw_key(a) == raw_key(b)) == alike(a, b) and raw_key(a) == raw_key(deepcopy(a))


def test_values_of_other_types_have_no_key(tmp_path):
    assert raw_key(np.array([{}])) is raw_key(object()) is raw_key((b"", None)) is raw_key("a\0b") is None
    assert raw_key(torch.zeros(2, dtype=torch.bfloat16)) is None and raw_key(tmp_path / "none") is None


@pytest.mark.parametrize("damage", only(1, [None, b"", b"nothing of the sort"]), ids=["cut", "empty", "another"])
def test_a_damaged_file_of_codes_is_computed_again(runs, damage):
    (file,) = (runs / "cache" / "codes").glob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    (runs / "w.yaml").touch()
    train(load_config(runs / "w.yaml", [f"out={runs / str(hash(damage))}", "training.steps=1"]))
    assert load_file(file).keys() == {"keys", "ids", "raw"} and file.read_bytes() == whole


def test_two_processes_save_into_one_file_of_codes(tmp_path):
    path, keys = tmp_path / "codes.safetensors", [bytes([number]) * 16 for number in range(3)]
    one, two = CodeFile(path, 1, 200), CodeFile(path, 1, 200)
    one.new, two.new = {keys[0]: [7], keys[1]: [8]}, {keys[1]: [8], keys[2]: [9]}
    one.new_raw, two.new_raw = {keys[2]: keys[0]}, {keys[0]: keys[2]}
    for each in (one, two):
        each.save()
    for each in (two, CodeFile(path, 1, 200)):
        assert [each.get(key) for key in keys] == [[7], [8], [9]] and len(each.ids) == 3
        assert [each.decoded(key) for key in (*keys, None)] == [keys[2], None, keys[0], None]


@given(
    st.dictionaries(st.binary(min_size=16, max_size=16), st.lists(st.integers(0, 2**31 - 1), min_size=3, max_size=3))
)
def test_a_file_of_codes_returns_the_codes_that_were_saved(tmp_path_factory, entries):
    path, items = tmp_path_factory.mktemp("file") / "codes.safetensors", list(entries.items())
    for part in (items[: len(items) // 2], items[len(items) // 2 :]):  # by two runs, one after the other
        file = CodeFile(path, 3, 2**31)
        file.new.update(part)
        assert all(file.get(key) == ids for key, ids in part)
        file.save()
    again = CodeFile(path, 3, 2**31)
    assert all(again.get(key) == ids for key, ids in items) and again.get(b"another") is None
    assert CodeFile(path, 4, 2**31).rows == {}, "codes of another length are ignored"


def test_items_that_differ_in_shape_or_type_have_different_keys():
    same = torch.zeros(2, 8, dtype=torch.uint8)
    others = [same.reshape(4, 4), same.float()[:, :2], torch.zeros(2, 8, dtype=torch.int8), same + 1]
    assert len({key_of(same), key_of(same.clone()), *map(key_of, others)}) == 5


TONES = """
inputs: {sound: {use: audio, rate: 8000, mels: 8, frames: 4, longest: 0.2, fill: true}}
model: {width: 16, depth: 1, heads: 2, context: 8, attention: same_sample}
tasks: {codes: {use: reconstruction, target: sound, levels: [8, 8], depth: 1, heads: 2}}
data: {dataset: {use: dtmf, samples: 40}}
training: {steps: 10, samples_per_step: 8, learning_rate: 1e-2}
evaluation: {every: 10}
logging: {tensorboard: false}
"""
CHANGED = "augment_wave: {gain: 30, shift: 0.1}, variants: 3"
DIALLER = (
    WRITER.replace("{image: {", "{sound: {")
    .replace("input: image", f"input: sound, {CHANGED}")
    .replace("target: image", "target: sound")
    .replace("digits", "{use: dtmf, samples: 40}")
)


@pytest.mark.system
def test_training_on_sounds_reads_the_codes_of_their_variants(tmp_path, monkeypatch):
    """A variant depends only on the item and its number. Training reads only variants, evaluations read the items. All
    codes are computed once, before training."""
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "q.yaml").write_text(TONES)
    (tmp_path / "w.yaml").write_text(DIALLER.replace("RUN", str(tmp_path / "q")))
    for name in "qw":
        train(load_config(tmp_path / f"{name}.yaml", [f"out={tmp_path / name}"]))
    run = load_run(tmp_path / "w")
    split, chopper = run.dataset().open("train"), run.choppers["sound"]
    items = [chopper.decode(split[number]["sound"]) for number in range(len(split))]
    (file,) = (tmp_path / "cache" / "codes").glob("*.safetensors")
    val = run.dataset().open("val")
    val_keys = {key_of(chopper.decode(val[number]["sound"])) for number in range(len(val))}
    assert len(load_file(file)["ids"]) == len({*map(key_of, items)}) * 4 + len(val_keys)
    monkeypatch.setattr(CodeVocabulary, "encode_all", lambda *_: pytest.fail("the codes are known"))
    drawn = [{tuple(chopper.augment(item, default_rng(seed))) for seed in range(30)} for item in items]
    for number, (item, codes) in enumerate(zip(items, drawn)):
        recalled = chopper.read(split[number]["sound"])
        assert {tuple(chopper.augment(recalled, default_rng(seed))) for seed in range(30)} == codes
        assert chopper.encoded(recalled) == chopper.encoded(item)
    assert isinstance(recalled, Recalled)
    more = replace(chopper, variants=4).read(split[0]["sound"])
    assert isinstance(more, torch.Tensor), "the codes of its fourth variant are not known"
    monkeypatch.undo()
    changed, sound = WaveAugmentation(gain=30, shift=0.1), chopper.vocabulary.chopper
    for item, codes in zip(items, drawn):
        keys = [chopper.variant_key(key_of(item), number) for number in range(3)]
        variants = [sound.cut(changed(item, 8000, default_rng(int.from_bytes(key)))) for key in keys]
        assert codes == {tuple(chopper.vocabulary.encode(each)) for each in variants}
        assert tuple(chopper.encoded(item)) == tuple(chopper.vocabulary.encode(item))
        assert chopper.augment((1, 2), default_rng(0)) == (1, 2), "ids stay as they are"
    assert sum(len(codes) > 1 for codes in drawn) > len(items) / 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("inputs.image.augment_wave={gain: 3}", "augment_wave is for sounds, but input 'image' of "),
        ("inputs.image.augment_wave={gain: 3} inputs.image.variants=0", "variants must be at least 1, not 0"),
        ("inputs.image.variants=3", "variants needs augment_wave, which creates them"),
    ],
)
def test_invalid_variants_are_refused(runs, capsys, change, message):
    assert main(["train", str(runs / "w.yaml"), *re.split(r" (?=inputs)", change), f"out={runs / 'bad'}"]) == 2
    assert message in capsys.readouterr().err
    shutil.rmtree(runs / "bad", ignore_errors=True)


KINDS = [torch.uint8, torch.int32, torch.int64, torch.bool, torch.float32, torch.complex64, torch.bfloat16]
TENSORS = st.tuples(
    st.sampled_from(KINDS), st.lists(st.sampled_from([0, 1, 2, 3, 16, 32]), max_size=3), st.integers(-1, 9)
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(["keys", "ids", "raw", "other"], TENSORS)))
def test_a_file_with_invalid_tensors_is_computed_again(tmp_path_factory, tensors):
    """For example, complex ids ended in a KeyError when they were written again."""
    path = tmp_path_factory.mktemp("odd") / "codes.safetensors"
    save_file({name: torch.full(shape, value).to(kind) for name, (kind, shape, value) in tensors.items()}, path)
    file = CodeFile(path, 3, 8)
    assert all(0 <= id < 8 for ids in map(file.get, file.rows) for id in ids)
    file.new[b"k" * 16] = [1, 2, 7]
    file.save()
    again = CodeFile(path, 3, 8)
    assert again.get(b"k" * 16) == [1, 2, 7] and again.ids.dtype == np.int32 and again.rows.keys() == file.rows.keys()
