"""Bad samples: a training names, counts and replaces them up to `data.bad_share`, and stops with one sentence if there
are more; unusual files are read."""

import io
import json
import math
import re
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from chopmix.commands.cli import main
from chopmix.experiment.build import build_choppers
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.settings.document import ConfigError
from chopmix.experiment.train import train
from chopmix.files.errors import RunError
from chopmix.files.reading import DataError
from chopmix.tokenizers.base import Role
from chopmix.tokenizers.media.spectrogram import SpectrogramChopper
from chopmix.training import checkpoints as checkpoint
from PIL import Image
from ranks import train_together

COUNT = 16
"""The number of training samples: four steps of four samples read each of them once."""
LATE, LATER = np.random.default_rng([0, 0]).permutation(COUNT)[[6, 13]].tolist()
"""Two samples that are not among the first four, on which the graph is checked for leaks."""
INPUTS = {
    "image": {"use": "image", "patch_size": 4, "channels": 3, "size": 8},
    "sound": {"use": "audio", "rate": 8000, "mels": 8, "frames": 10},
    "sensor": {"use": "sensor", "channels": {"speed": "m/s", "gear": None}, "categories": {"gear": 6}, "window": 2},
}
ENDING = {"image": "png", "sound": "wav", "sensor": "csv"}
TREE = {
    "model": {"width": 16, "depth": 1, "heads": 2, "context": 32, "attention": "same_sample"},
    "tasks": {"kind": {"use": "classification", "target": "label"}},
    "training": {"steps": 4, "samples_per_step": 4, "device": "cpu", "learning_rate": 1e-2},
    "evaluation": {"every": 4},
    "checkpoints": {"every": 4},
    "logging": {"every": 1, "tensorboard": False},
}


# ------------------------------------------------------------------------------------------------ contents of files


def pixels(number: int = 0, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def picture(image: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6  # turn right


def wave(samples: int = 2000, number: int = 0) -> np.ndarray:
    return np.random.default_rng(number).normal(size=samples).astype(np.float32) * 0.1


def sound(samples: np.ndarray, rate: int = 8000, kind: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def good(kind: str, number: int) -> bytes:
    if kind == "image":
        return picture(pixels(number))
    if kind == "sound":
        return sound(wave(number=number))
    return f"speed,gear\n{number},1\n{number / 2},2\n,3\n".encode()


# ---------------------------------------------------------------------------------------------------- experiments


class Experiment:
    """A tiny experiment in a new folder: writes its data, runs it and reads its logged metrics."""

    def __init__(self, folder: Path, capsys):
        self.folder, self.capsys, self.out = folder, capsys, folder / "run"

    def write(self, inputs: dict, dataset: dict) -> None:
        tree = {"inputs": inputs, **TREE, "data": {"dataset": dataset}, "out": str(self.out)}
        (self.folder / "x.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))

    def manifest(self, kind: str, train: dict | None = None, val: dict | None = None) -> None:
        """Writes samples of one kind as files of JSONL manifests; some numbers have other contents (None: no file)."""
        (self.folder / "files").mkdir()
        for split, count, other in (("train", COUNT, train or {}), ("val", 4, val or {})):
            lines = []
            for number in range(count):
                name = f"files/{split}-{number}.{ENDING[kind]}"
                content = other.get(number, good(kind, number))
                if content is not None:
                    (self.folder / name).write_bytes(content)
                lines.append(json.dumps({"key": f"{split} {number}", kind: name, "label": "ab"[number % 2]}))
            (self.folder / f"{split}.jsonl").write_text("\n".join(lines))
        self.write({kind: INPUTS[kind]}, self.dataset([kind, "label"], [kind]))

    def dataset(self, columns: list[str], files: list[str] | None = None) -> dict:
        names = {split: str(self.folder / f"{split}.jsonl") for split in ("train", "val")}
        return {"use": "manifest", **names, "columns": columns, "files": files or []}

    def shards(self, other: dict | None = None) -> None:
        """Writes images and labels into tar files; some training members have other contents."""
        for split, count in (("train", COUNT), ("val", 4)):
            members = {f"{n:02}.png": good("image", n) for n in range(count)}
            members |= {f"{n:02}.json": b'{"kind": %d}' % (n % 2) for n in range(count)}
            members |= other if other and split == "train" else {}
            with tarfile.open(self.folder / f"{split}-0.tar", "w") as tar:
                for name, content in sorted(members.items()):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        dataset = {"use": "webdataset", "columns": {"image": "png", "label": "json.kind"}}
        dataset |= {split: str(self.folder / f"{split}-*.tar") for split in ("train", "val")}
        self.write({"image": INPUTS["image"]}, dataset)

    def run(self, *overrides: str) -> str:
        """The messages of a run that finishes with finite losses."""
        summary, status = train(load_config(self.folder / "x.yaml", overrides))
        losses = [line["train/loss"] for line in self.lines() if "train/loss" in line]
        assert status == 0 and summary["step"] == 4 and len(losses) == 4
        assert all(map(math.isfinite, [*losses, summary["val/loss"]])) and summary["val/loss"] > 0
        return self.capsys.readouterr().err

    def stops(self, match: str, *overrides: str, error: type = DataError, before: bool = False) -> bool:
        """Whether it stops with one sentence, and with `before` before the first step."""
        with pytest.raises(error, match=match) as caught:
            train(load_config(self.folder / "x.yaml", overrides))
        one_line = error is ConfigError or len(str(caught.value).splitlines()) == 1
        return one_line and not (before and (self.lines() or checkpoint.steps(self.out)))

    def lines(self) -> list[dict]:
        file = self.out / "metrics.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def experiment(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CHOPMIX_CACHE", str(tmp_path / "cache"))
    return Experiment(tmp_path, capsys)


# ----------------------------------------------------------------------------------------- unusual files that are read

ODD = {
    "image-animated": picture(pixels(), "GIF", save_all=True, append_images=[Image.fromarray(pixels(1))]),
    "image-16-bit": picture(pixels()[..., 0].astype(np.uint16) * 257),
    "image-cmyk": picture(Image.fromarray(pixels()).convert("CMYK"), "JPEG"),
    "image-1-pixel": picture(pixels(0, 1, 1)),
    "image-1-pixel-row": picture(pixels(0, 1, 300)),
    "image-exif": picture(pixels(0, 8, 12), "JPEG", exif=EXIF),
    "image-grey-transparent": picture(Image.fromarray(pixels()).convert("LA")),
    "sound-silence": sound(np.zeros(2000, dtype=np.float32)),
    "sound-shorter-than-a-window": sound(wave(30)),
    "sound-1-sample": sound(wave(1)),
    "sound-12345-hertz": sound(wave(3000), 12345),
    "sound-8-channels": sound(np.stack([wave(number=n) for n in range(8)], axis=1)),
    "sound-mono-flac": sound(wave()[:, None], kind="FLAC"),
    "sensor-1-measurement": b"speed,gear\n1,2\n",
    "sensor-all-missing": b"speed,gear\n,\n,\n",
    "sensor-more-columns-in-another-order": b"gear,time,speed\n1,0.0,2\n2,0.1,3\n",
    "sensor-from-a-spreadsheet": b"\xef\xbb\xbfspeed,gear\r\n1,2\r\n3,4\r\n",
}


@pytest.mark.parametrize("name", ODD)
def test_unusual_files_are_read(experiment, name):
    experiment.manifest(name.partition("-")[0], {LATE: ODD[name]}, {1: ODD[name]})
    assert " is bad" not in experiment.run()


@pytest.mark.parametrize("normalize", ["data", "clip"])
def test_data_of_silence_alone_are_trained(experiment, normalize):
    silence = dict.fromkeys(range(COUNT), ODD["sound-silence"])
    experiment.manifest("sound", silence, {n: silence[n] for n in range(3)})
    assert " is bad" not in experiment.run(f"inputs.sound.normalize={normalize}")


@pytest.mark.parametrize("size", ["fit_size=crop", "fit_size=pad", "size=null", "most_tokens=3"])
def test_an_image_of_one_pixel_is_resized(experiment, size):
    experiment.manifest("image", {LATE: ODD["image-1-pixel"], LATER: ODD["image-1-pixel-row"]})
    native = ["inputs.image.position=sinusoidal_grid", "inputs.image.size=null", "inputs.image.most_tokens=32"]
    assert " is bad" not in experiment.run(*(native if "fit" not in size else []), f"inputs.image.{size}")


# --------------------------------------------------------------------------------------- bad samples that are replaced

FLAC = sound(wave(8000), kind="FLAC")
JPEG = picture(pixels(0, 64, 64), "JPEG")
BAD = {
    "image-corrupt": (b"\x89PNG\r\n\x1a\nno image", r"the image cannot be read: .*{file}"),
    "image-zero-byte": (b"", r"the image cannot be read: .*{file}"),
    "image-cut-png": (good("image", 0)[:120], r"the image cannot be read: .*{file}"),
    "image-cut-jpeg": (JPEG[: len(JPEG) // 2], r"the image cannot be read: .*{file}: image file is truncated"),
    "image-is-a-text": (
        b"<html>404 Not Found</html>",
        r"the image cannot be read: .*{file}: it is damaged or has an unsupported format",
    ),
    "image-missing": (None, r"the image cannot be read: .*{file} does not exist"),
    "sound-no-numbers": (
        sound(np.array([0, np.nan, np.inf, 0]), subtype="FLOAT"),
        r"the sound has 2 samples that are not finite",
    ),
    "sound-cut-flac": (FLAC[: len(FLAC) // 2], r"the sound cannot be read: .*psf_fseek|lost sync"),
    "sound-zero-byte": (b"", r"the sound cannot be read: .*{file}"),
    "sound-no-samples": (sound(np.zeros(0, dtype=np.float32)), r"the sound has no samples"),
    "sound-missing": (None, r"the sound cannot be read: .*{file}"),
    "sensor-wrong-column-count": (b"speed,gear\n1,2\n3,4,5\n", r"{file}, line 3 has 3 columns, but the header has 2"),
    "sensor-no-column": (b"speed,time\n1,2\n", r"{file}: no column 'gear'; the columns are speed, time"),
    "sensor-no-number": (b"speed,gear\nfast,2\n", r"{file}, line 2 contains a value that is not a number"),
    "sensor-beyond-its-categories": (
        b"speed,gear\n1,6\n",
        r"{file}: channel 'gear' must hold whole numbers from 0 to 5",
    ),
    "sensor-zero-byte": (b"", r"{file}: no column 'speed'; the columns are none"),
    "sensor-no-text": (b"speed,gear\n\xff,1\n", r"{file}, line 2: byte 0 \(0xff\) is not valid UTF-8"),
    "sensor-missing": (None, r"{file} does not exist"),
}


def reason(name: str, file: str) -> str:
    kind = name.partition("-")[0]
    return f"{kind}: .*" + BAD[name][1].format(file=re.escape(f"{file}.{ENDING[kind]}"))


@pytest.mark.parametrize("name", BAD)
def test_bad_training_samples_stop_the_run_or_are_replaced_named_and_counted(experiment, name):
    kind, content = name.partition("-")[0], BAD[name][0]
    experiment.manifest(kind, {LATE: content, LATER: content})
    message, why = f"train: sample 'train {LATER}' is bad: ", reason(name, f"train-{LATER}")
    counted = r" \(2 of 16 samples so far; data\.bad_share allows a share of 0\.1\)$"
    assert experiment.stops(f"{message}{why}.*{counted}", "data.bad_share=0.1")
    output = experiment.capsys.readouterr().err
    message = f"train: sample 'train {LATE}' is bad and replaced by the next sample: "
    assert re.search(message + reason(name, f"train-{LATE}"), output) and output.count(" is bad") == 1
    output = experiment.run("data.bad_share=0.125")  # resumes, and knows both samples
    assert "train: 2 bad samples are known from the checkpoint" in output and "train: 2 of 16 samples are bad" in output
    assert " is bad" not in output
    shutil.rmtree(experiment.out)
    output = experiment.run("data.bad_share=0.125")
    assert re.search(message + reason(name, f"train-{LATE}"), output)
    assert output.count(" is bad") == 2 and "(2 of 16 samples so far)" in output


@pytest.mark.parametrize("name", BAD)
def test_bad_validation_samples_are_skipped_or_stop_the_run(experiment, name):
    kind, content = name.partition("-")[0], BAD[name][0]
    experiment.manifest(kind, val={1: content})
    counted = r" \(1 of 4 samples so far; data\.bad_share allows a share of 0\)$"
    assert experiment.stops(f"val: sample 'val 1' is bad: {reason(name, 'val-1')}.*{counted}")
    assert checkpoint.steps(experiment.out) == [4]  # no step is lost
    output = experiment.run("data.bad_share=0.25")
    assert re.search(f"val: sample 'val 1' is bad and skipped: {reason(name, 'val-1')}", output)


@pytest.mark.parametrize("kind", ["image", "sound", "sensor"])
def test_a_data_set_without_a_readable_sample_is_refused(experiment, kind):
    experiment.manifest(kind, dict.fromkeys(range(COUNT), b"nothing"))
    message = r"(no .* of the training data can be read; first error|all samples are bad; the first): .*train-\d+\."
    assert experiment.stops(message, "data.bad_share=1", error=ValueError, before=True)


def test_a_number_in_place_of_a_path_is_a_bad_sample(experiment):
    experiment.manifest("image")
    lines = [json.loads(line) for line in (experiment.folder / "train.jsonl").read_text().splitlines()]
    lines[LATE]["image"] = 5
    (experiment.folder / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert experiment.stops(f"'train {LATE}' is bad: image: .*must be a path or the bytes of a file, not int")
    shutil.rmtree(experiment.out)
    assert f"'train {LATE}' is bad and replaced by the next sample" in experiment.run("data.bad_share=0.1")


def test_a_clip_too_long_for_the_context_is_a_bad_sample(experiment):
    """It stops the run, or is reported once per sample if `data.bad_share` allows it."""
    experiment.manifest("sound", {LATE: sound(wave(40000)), LATER: sound(wave(40000))})
    assert experiment.stops("is bad: none of its inputs fits: 51 tokens are more than the context of 32")
    shutil.rmtree(experiment.out)
    output = experiment.run("data.bad_share=0.125")
    assert output.count("none of its inputs fits: 51 tokens are more than the context of 32") == 2


def test_inputs_dropped_because_they_do_not_fit_are_counted_at_the_end(experiment):
    """Training and `evaluate` name the first sample of each split, and at the end the number of samples."""
    long = sound(wave(40000))
    experiment.manifest("sound", {LATE: long, LATER: long}, {1: long})
    for split in ("train", "val"):
        file = experiment.folder / f"{split}.jsonl"
        rows = [json.loads(line) | {"note": "a"} for line in file.read_text().splitlines()]
        file.write_text("\n".join(map(json.dumps, rows)))
    inputs = {"note": {"use": "text", "encoding": "bytes"}, "sound": INPUTS["sound"]}
    experiment.write(inputs, experiment.dataset(["sound", "note", "label"], ["sound"]))
    output = experiment.run("data.too_long=drop").splitlines()
    first = "sample 'train {}' has 53 tokens, more than the context of 32: its sound (51 tokens) is dropped"
    reported = [line for line in output if "is dropped (reported once per input)" in line]
    assert len(reported) == 2 and first.format(LATE) in reported[0] and "'val 1' has 53 tokens" in reported[1]
    counted = [
        "train: inputs dropped because they do not fit into the context: sound of 2 samples",
        "val: inputs dropped because they do not fit into the context: sound of 1 samples",
    ]
    assert [
        line.strip() for line in output if "inputs dropped because they do not fit into the context" in line
    ] == counted
    assert main(["evaluate", str(experiment.out)]) == 0
    assert experiment.capsys.readouterr().err.splitlines()[-2:] == [
        counted[1], "1 of 4 samples: predicted without sound"
    ]  # fmt: skip


def test_bad_samples_of_several_processes_are_counted_together(experiment, tmp_path):
    """Each of two processes reads one bad sample of sixteen, which is allowed; two are too many."""
    other = np.random.default_rng([0, 0]).permutation(COUNT)[11]  # of the second process, as LATE is of the first
    experiment.manifest("image", {LATE: b"", int(other): b""})
    done = train_together(tmp_path, 2, experiment.folder / "x.yaml", "data.bad_share=0.1")
    assert done.returncode == 2
    assert "train: 2 of 16 samples are bad, data.bad_share allows a share of 0.1\n" in done.stderr


def test_statistics_of_sounds_are_not_of_the_first_files_alone(experiment, monkeypatch):
    """The first sounds of the manifest are quiet, the last ones are loud."""
    monkeypatch.setattr(SpectrogramChopper, "fits_on", 6)
    loud = {number: sound(wave(number=number) * (4 if number > 7 else 0.01)) for number in range(COUNT)}
    experiment.manifest("sound", loud)
    config = load_config(experiment.folder / "x.yaml")
    fitted = build_choppers(config, experiment.folder / "assets", config.data.dataset())["sound"]
    first = {number: loud[number] for number in range(6)}.values()
    assert fitted.statistics[0] > replace(fitted, statistics=None).fit(lambda: first, Role()).statistics[0] + 3


def test_a_run_is_not_resumed_with_other_labels(experiment):
    """Keys and files are unchanged, two labels are swapped."""
    experiment.manifest("image")
    train(load_config(experiment.folder / "x.yaml", ["training.steps=1"]))
    file = experiment.folder / "train.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[4]["label"], rows[5]["label"] = rows[5]["label"], rows[4]["label"]
    file.write_text("\n".join(map(json.dumps, rows)))
    assert experiment.stops(
        r"the data \(train\) changed since step 1; to train its weights on the new data", error=RunError
    )


def test_invalid_numbers_of_bad_samples_in_a_checkpoint_are_ignored(experiment):
    experiment.manifest("image")
    train(load_config(experiment.folder / "x.yaml", ["training.steps=1"]))
    (state,) = (experiment.folder / "run" / "checkpoints").glob("*/state.json")
    changed = json.loads(state.read_text()) | {"bad": {"1" * 5000: "x", "a": "x", "²": "x"}}
    state.write_text(json.dumps(changed))
    assert train(load_config(experiment.folder / "x.yaml", ["training.steps=2"]))[0]["step"] == 2


def test_bad_validation_samples_of_several_processes_are_counted_together(experiment, tmp_path):
    """Each of two processes reads one bad sample of four, which is allowed; two are too many."""
    experiment.manifest("image", val={0: b"", 1: b""})
    done = train_together(tmp_path, 2, experiment.folder / "x.yaml", "data.bad_share=0.25")
    assert done.returncode == 2 and "val: 2 of 4 samples are bad" in done.stderr


def test_the_count_at_the_end_is_of_all_processes(experiment, tmp_path):
    """The checkpoint contains the bad samples of all processes too."""
    other = np.random.default_rng([0, 0]).permutation(COUNT)[11]
    experiment.manifest("image", {LATE: b"", int(other): b""})
    done = train_together(tmp_path, 2, experiment.folder / "x.yaml", "data.bad_share=0.125")
    assert done.returncode == 0 and "train: 2 of 16 samples are bad\n" in done.stderr
    (state,) = (experiment.folder / "run" / "checkpoints").glob("*/state.json")
    assert sorted(map(int, json.loads(state.read_text())["bad"])) == sorted([LATE, int(other)])


def test_a_batch_of_bad_samples_alone_is_skipped(experiment):
    experiment.manifest("image", val={1: b""})
    assert "'val 1' is bad and skipped" in experiment.run("data.bad_share=0.25", "evaluation.rows=1")


def test_a_run_that_stops_at_a_bad_sample_keeps_a_checkpoint(experiment):
    experiment.manifest("image", {LATER: b""})
    assert experiment.stops(f"'train {LATER}' is bad")
    assert checkpoint.steps(experiment.out)


# ------------------------------------------------------------------------------------------------------ shards


def cut(file: Path, where: str) -> None:
    content = bytearray(file.read_bytes())
    with tarfile.open(file) as tar:
        last = tar.getmembers()[-6]
    ends = {"member": last.offset_data + 20, "boundary": last.offset, "header": last.offset + 99, "nothing": 0}
    if where == "damage":
        content[last.offset : last.offset + 40] = bytes(range(100, 140))
    file.write_bytes(content[: ends.get(where)])


@pytest.mark.parametrize("where", ["member", "boundary", "header", "damage"])
def test_a_shard_cut_short_is_one_bad_sample(experiment, where):
    experiment.shards()
    cut(experiment.folder / "train-0.tar", where)
    assert experiment.stops(r"train-0\.tar is damaged or cut short after '\d+': ", before=True)
    output = experiment.run("data.bad_share=0.2")
    assert re.search(
        r"train: sample '\d+ and what follows' is bad and replaced by the next sample: .*cut short after", output
    )


def test_an_empty_shard_stops_before_the_first_step(experiment):
    experiment.shards()
    cut(experiment.folder / "train-0.tar", "nothing")
    assert experiment.stops(r"train-0\.tar is damaged or cut short: ", "data.bad_share=1", before=True)


@pytest.mark.parametrize(
    ("member", "content", "match"),
    [("png", b"nothing", "image: the image cannot be read"), ("png", b"", "image: the image has no bytes"),
     ("json", b"{", r".*train-0\.tar: \d+\.json: not JSON: EOF while parsing")],
)  # fmt: skip
def test_bad_members_of_shards_are_replaced(experiment, member, content, match):
    experiment.shards({f"{number:02}.{member}": content for number in (LATE, LATER)})
    output = experiment.run("data.bad_share=0.125")
    assert re.search(f"train: sample '{LATE:02}' is bad and replaced by the next sample: {match}", output)
    assert "(2 of 16 samples so far)" in output


def test_a_missing_shard_is_named(experiment):
    experiment.shards()
    (experiment.folder / "val-0.tar").unlink()
    assert experiment.stops(r"no shard at '.*val-\*\.tar'", before=True)
    assert experiment.stops(
        r"val-7\.tar does not exist", f"data.dataset.val={experiment.folder}/val-{{7..8}}.tar", before=True
    )


# ---------------------------------------------------------------------- mistakes that stop a run before the first step


def test_a_label_outside_the_classes_is_named(experiment):
    for split, names in (("train", "ab"), ("val", "abc")):
        for number in range(8):
            file = experiment.folder / split / names[number % len(names)] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(good("image", number))
    dataset = {"use": "image_folder", **{split: str(experiment.folder / split) for split in ("train", "val")}}
    experiment.write({"image": INPUTS["image"]}, dataset)
    assert experiment.stops(r"c/2\.png.*'c' in column 'label' is none of the 2 classes", before=True)
    output = experiment.run("data.bad_share=0.25")
    assert "val: sample 'c/2.png' is bad and skipped: 'c' in column 'label' is none of the 2 classes" in output
    assert "val: sample 'c/5.png' is bad and skipped" in output and "(2 of 8 samples so far)" in output


def test_an_input_that_no_sample_has_is_refused(experiment):
    experiment.manifest("image")
    inputs = {"image": INPUTS["image"], "radar": INPUTS["sensor"]}
    experiment.write(inputs, experiment.dataset(["image", "label", "radar"], ["image"]))
    message = "inputs.radar: none of the 16 training samples has a value in column 'radar'"
    assert experiment.stops(message, before=True)


def test_an_input_without_a_column_of_the_data_set_is_refused(experiment):
    experiment.manifest("image")
    experiment.write({"radar": INPUTS["sensor"]}, experiment.dataset(["image", "label"]))
    message = r"inputs\.radar: dataset 'manifest' has no column 'radar'; possible: image, label \(data\.columns selects"
    assert experiment.stops(message, before=True)


@pytest.mark.parametrize(
    ("overrides", "error", "match"),
    [
        (["data.bad_share=5"], DataError, r"data\.bad_share must be a share from 0 to 1, not 5"),
        (["data.bad_share=-0.1"], DataError, r"data\.bad_share must be a share from 0 to 1, not -0\.1"),
        (["data.bad_share=some"], ConfigError, r"data\.bad_share"),
        (["data.columns.imag=image"], ConfigError, r"data\.columns\.imag: no input is named 'imag'.*image"),
        (["data.columns.image=photo"], DataError, r"inputs\.image: dataset 'manifest' has no column 'photo'; "
         r"possible: image, label"),
        pytest.param(
            ["tasks.kind.target=lable"], DataError, r"tasks\.kind\.target: dataset 'manifest' has no column "
             r"'lable'; possible: image",
        ),
        (["data.dataset.files=[sound]"], ValueError, r"'sound' is not among the columns \(image, label\)"),
        (["data.dataset.train=none.jsonl"], DataError, r"none\.jsonl does not exist"),
        (["data.dataset.use=image_folder"], ConfigError, r"data\.dataset\.columns: .*"),
        (["inputs.image.size=10"], ConfigError, r"inputs\.image: size 10 must be a multiple of patch_size \(4\)"),
        (["inputs.image.size=null"], ValueError, r"learned_grid needs images of one 'size'"),
        (["training.tokens_per_step=64"], ConfigError,
         r"needs one of .*, not tokens_per_step and samples_per_step; set the others to null"),
        (["training.input_dropout.imag=0.5"], ConfigError, r"training\.input_dropout"),
        (["training.freeze=[tokens]"], ValueError, r"training\.freeze: the model has no part 'tokens'; possible: "),
        (["tasks.kind.pooling=class_token"], ValueError, r"class_token needs core tokens, .*set "
         r"model\.core_tokens: 1"),
        (["model.attention=same_sampl"], ConfigError, r"model\.attention: .*same_sampl"),
        (["checkpoints.best=val/acuracy"], ValueError, r"checkpoints\.best is 'val/acuracy'; possible: .*val/accuracy"),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)  # fmt: skip
def test_configuration_mistakes_stop_before_the_first_step(experiment, overrides, error, match):
    experiment.manifest("image")
    assert experiment.stops(match, *overrides, error=error, before=True)
