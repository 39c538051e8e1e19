"""A trained run as a part of another run: its vectors are read, its weights never change, and a copy is stored."""

import pickle
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from chopmix.commands.cli import main
from chopmix.data.generated import MadeDataset
from chopmix.data.samples import Columns
from chopmix.experiment.embed import embed
from chopmix.experiment.run import Run, load_run, open_part
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.files.reading import DataError
from chopmix.inference.explorer import grid_places
from chopmix.models.frozen import Frozen
from chopmix.tokenizers.base import Chopper, Role, axes_of
from chopmix.tokenizers.chopping.packing import place
from chopmix.tokenizers.encoded import EncodedPreprocessor, EncodedTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import train_together
from safetensors.torch import load_file
from test_mixing import TREE, mixed, records  # noqa: F401 (a fixture: cross-modal arithmetic, tiny)
from torch import nn


@pytest.fixture
def teacher(tmp_path) -> Path:
    """Return a run that reads only the image, after a class token."""
    tree = TREE | {
        "inputs": {"image": TREE["inputs"]["image"]},
        "model": TREE["model"] | {"width": 16, "heads": 2, "core_tokens": 1, "attention": "same_sample"},
        "tasks": {"which": {"use": "classification", "target": "operator"}},
        "training": TREE["training"] | {"steps": 2},
        "out": str(tmp_path / "teacher"),
    }
    (tmp_path / "teacher.yaml").write_text(yaml.safe_dump(tree))
    train(load_config(tmp_path / "teacher.yaml"))
    return tmp_path / "teacher"


def student(mixed, teacher: Path, name: str = "student", **changes: object) -> Path:  # noqa: F811
    """Return the YAML of a run with three inputs, of which the image is encoded by the teacher."""
    image = {"use": "encoded", "run": str(teacher), "input": "image"} | changes
    return mixed(name, inputs=TREE["inputs"] | {"image": image})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = sorted(folder.glob("checkpoints/*/model.safetensors"))[-1:]
    return load_file(file)


def test_a_run_that_is_used_as_a_part_is_copied_and_never_changes(mixed, teacher, tmp_path):  # noqa: F811
    before, file = weights(teacher), student(mixed, teacher)
    train(load_config(file, ["training.steps=3"]))
    folder = file.with_suffix("")
    copied = weights(folder / "assets" / "image" / "run")
    assert copied.keys() == before.keys() and all(torch.equal(copied[name], before[name]) for name in copied)
    names = [name for name in weights(folder) if name.startswith("tokenizers.image.")]
    assert names == ["tokenizers.image.projector.bias", "tokenizers.image.projector.weight"]
    run = load_run(folder)
    samples = [{"image": sample["image"]} for sample in map(run.dataset().open("val").__getitem__, range(4))]
    metrics, predictions = run.evaluate("val"), run.predict(samples)
    shutil.rmtree(teacher)
    again = load_run(folder)
    assert again.evaluate("val") == metrics and again.predict(samples) == predictions
    train(load_config(file))  # training continues without the original of the part


def test_tokens_are_the_projected_vectors_of_the_part(mixed, teacher):  # noqa: F811
    file = student(mixed, teacher)
    train(load_config(file, ["training.steps=1"]))
    run, source = load_run(file.with_suffix("")), load_run(teacher)
    data = run.dataset().open("val")
    samples = [{"image": data[number]["image"]} for number in range(3)]
    batch = run.as_split(samples, for_prediction=False).read(run.as_split(samples).all())
    chunks = run.model.plan_first(batch.first, dtype=torch.float32, device="cpu").chunks["image"]
    embedder = run.model.tokenizer("image")
    expected = torch.cat([vectors[1:] for vectors in embed(source, samples, pool="tokens")])  # without the class token
    with torch.no_grad():
        torch.testing.assert_close(embedder(chunks), embedder.projector(expected), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def reader_of_all(tmp_path_factory) -> tuple[Run, list[Columns]]:
    """Return a run that reads an image, a text and a sound, and samples of its data."""
    folder = tmp_path_factory.mktemp("reader")
    changes = {"training": TREE["training"] | {"steps": 1}, "evaluation": {"every": 9}, "out": str(folder / "run")}
    (folder / "run.yaml").write_text(yaml.safe_dump(TREE | changes, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MadeDataset, "held_back", 30)
        train(load_config(folder / "run.yaml"))
    run = load_run(folder / "run", "last")
    samples = run.dataset().open("train")
    return run, [samples[number] for number in range(len(samples))]


@pytest.mark.parametrize("name", ["image", "operator", "sound"])
@settings(max_examples=8, deadline=None)
@given(numbers=st.lists(st.integers(0, 23), min_size=1, max_size=5))
def test_every_kind_of_input_is_embedded_as_by_the_run_in_any_batch(reader_of_all, name, numbers):
    """Independent of the other samples of the batch and their order."""
    run, rows = reader_of_all
    chopper = EncodedPreprocessor(run=str(run.folder), input=name).fit(tuple, Role(open_run=open_part))
    raw = [rows[number][name] for number in numbers]
    samples = [[(name, chopper.chop(chopper.decode(each)))] for each in raw]
    planned = place(samples, {name: chopper}, 64, axes_of([chopper]), trim=True)
    embedder = EncodedTokenizer(chopper, width=8, context=64)
    chunks = embedder.plan(planned.chunks[name], dtype=torch.float32, device="cpu")
    with torch.no_grad():
        vectors = embedder(chunks)
        expected = embedder.projector(torch.cat(embed(run, [{name: each} for each in raw], pool="tokens")))
    torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-4)

    def places(chopper: Chopper) -> list[tuple[int, int]] | None:
        chunk = chopper.chop(chopper.decode(raw[0]))
        return grid_places(
            chopper, place([[(name, chunk)]], {name: chopper}, 64, axes_of([chopper])), name, chunk.count
        )

    assert places(chopper) == places(run.choppers[name])


@pytest.mark.system
def test_two_processes_with_a_part_have_the_losses_of_one(mixed, teacher, tmp_path):  # noqa: F811
    training = {
        "samples_per_step": 5,
        "rows_per_micro_batch": 1,
        "steps": 2,
        "optimizer": "adamw",
        "precision": "float32",
    }
    sections = {"training": TREE["training"] | training, "logging": {"every": 1, "tensorboard": False}}
    image = {"image": {"use": "encoded", "run": str(teacher), "input": "image"}}
    one, two = (mixed(name, **sections, inputs=TREE["inputs"] | image) for name in ("one", "two"))
    train(load_config(one))
    process = train_together(tmp_path, 2, two)
    assert process.returncode == 0, process.stderr
    first, second = ([line["train/loss"] for line in records(file.with_suffix("")) if "train/loss" in line]
                     for file in (one, two))  # fmt: skip
    assert len(first) == 2 and first == pytest.approx(second, rel=1e-6)


@pytest.mark.system
def test_a_run_with_a_part_resumes_bit_for_bit(mixed, teacher):  # noqa: F811
    for steps in ("2", "4"):
        train(load_config(student(mixed, teacher, "parts"), [f"training.steps={steps}", "evaluation.every=100"]))
    train(load_config(student(mixed, teacher, "whole"), ["training.steps=4", "evaluation.every=100"]))
    first, second = (
        load_run(student(mixed, teacher, name).with_suffix(""), "last").model for name in ("parts", "whole")
    )
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


@pytest.mark.parametrize("changes, message", [
    ({"input": "picture"}, "has no input 'picture'; possible: image"),
    ({"run": "nowhere"}, "nowhere is not a run"),
])  # fmt: skip
def test_a_run_that_cannot_be_a_part_is_refused(mixed, teacher, capsys, changes, message):  # noqa: F811
    assert main(["train", str(student(mixed, teacher, **changes))]) == 2
    assert message in capsys.readouterr().err


def test_a_part_of_an_untrusted_run_executes_no_code(mixed, teacher, capsys):  # noqa: F811
    """The run in the assets is read without trust: it must not name code outside chopmix."""
    file = student(mixed, teacher)
    train(load_config(file, ["training.steps=1"]))
    inner = file.with_suffix("") / "assets" / "image" / "run" / "config.yaml"
    inner.write_text(inner.read_text().replace("use: image", "use: evil:Thing"))
    assert main(["evaluate", str(file.with_suffix(""))]) == 2
    assert "evil" in capsys.readouterr().err


def test_a_frozen_model_moves_and_has_no_trained_parameters(mixed, teacher):  # noqa: F811
    part = Frozen(load_run(teacher).model)
    assert not list(part.parameters()) and not part.state_dict() and not list(nn.Sequential(part).named_modules())[2:]
    part.double()
    assert {parameter.dtype for parameter in part.model.parameters()} == {torch.float64}
    part.train()
    assert not part.model.training and not any(p.requires_grad for p in part.model.parameters())


def test_a_part_is_refused_where_runs_cannot_be_opened():
    with pytest.raises(ValueError, match="a trained run cannot be used as a part here"):
        EncodedPreprocessor(run="x", input="y").fit(tuple, Role())


def test_the_content_of_a_part_depends_on_its_weights(mixed, teacher):  # noqa: F811
    file = student(mixed, teacher)
    train(load_config(file, ["training.steps=1"]))
    chopper = load_run(file.with_suffix("")).choppers["image"]
    assert chopper.part.content == open_part(teacher).content, "the copy has the content of the run"
    train(load_config(teacher.with_suffix(".yaml"), ["training.seed=1", f"out={teacher.with_name('other')}"]))
    assert chopper.part.content != open_part(teacher.with_name("other")).content


def test_a_chopper_with_a_run_can_be_pickled_and_a_missing_run_is_reported(mixed, teacher):  # noqa: F811
    file = student(mixed, teacher)
    train(load_config(file, ["training.steps=1"]))
    folder = file.with_suffix("")
    chopper = load_run(folder).choppers["image"]
    again, image = pickle.loads(pickle.dumps(chopper)), load_run(folder).dataset().open("val")[0]["image"]
    one, other = (each.inner([each.chop(each.decode(image))]) for each in (chopper, again))
    with torch.no_grad():
        parts = [Frozen(each.part.model) for each in (chopper, again)]
        vectors = [
            part(part.plan(planned, dtype=torch.float32, device="cpu")) for part, planned in zip(parts, (one, other))
        ]
    assert torch.equal(*vectors)
    shutil.rmtree(folder / "assets" / "image" / "run")
    with pytest.raises(DataError, match="is missing: this run needs it"):
        load_run(folder)
