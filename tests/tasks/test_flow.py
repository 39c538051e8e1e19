"""Flow matching: what training hides and what it teaches, and how noise becomes an item."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.data.sampler import SampleIndex
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import ConfigError, load_config
from chopmix.inference.generate import Generating
from chopmix.inference.items import generate_items
from chopmix.models.batch import Batch, Chunks, SetPlan
from chopmix.models.contract import ContractError
from chopmix.models.generation.procedure import Procedure
from chopmix.models.generation.refine import Refining
from chopmix.models.generation.sampling import Streams
from chopmix.models.layers.scalar import ScalarEmbedding
from chopmix.models.model import Model
from chopmix.models.tokens import plain_tokens
from chopmix.tasks.base import sampled, with_targets
from chopmix.tasks.flow import Flow
from chopmix.tokenizers.image import ImageChopper
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from ranks import train_together

CHOPPER = ImageChopper(size=4, patch_size=2, channels=1)


def task_of(**options) -> Flow:
    task = Flow(target="image", **options)
    task.choppers = {"image": CHOPPER}
    return task


def batch_of(*seeds: int) -> Batch:
    """A row for each seed: an image of this grey value in four patches."""
    count = len(seeds)
    images = torch.tensor(seeds, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
    chunks = Chunks(values=images, index=torch.arange(4).repeat(count), slots=torch.arange(4 * count),
                    counts=torch.full((count,), 4))  # fmt: skip
    tokens = plain_tokens(count, 4, axes=3)
    tokens = replace(tokens, sample=torch.arange(1, count + 1)[:, None].expand(-1, 4))
    seeded = tuple((0, 0, seed) for seed in seeds)
    return Batch(main=SetPlan(tokens=tokens, chunks={"image": chunks}, samples=count, seeds=seeded))


@settings(max_examples=20, deadline=None)
@given(seeds=st.lists(st.integers(0, 255), min_size=1, max_size=4, unique=True))
def test_training_reads_a_mixture_of_noise_and_item_that_depends_only_on_the_sample(seeds):
    task, batch = task_of(), batch_of(*seeds)
    changed, targets = task.targets(batch)
    chunks, clean = changed.main.chunks["image"], CHOPPER.slices(batch.main.chunks["image"])
    assert torch.equal(targets.values, clean) and targets.count == 4 * len(seeds)
    noisy, time = (
        CHOPPER.slices(replace(chunks)) if chunks.values.dim() == 4 else chunks.values / 127.5 - 1,
        chunks.scalars,
    )
    for number, seed in enumerate(seeds):
        drawn, noise = task.drawn((0, 0, seed))
        rows = slice(4 * number, 4 * number + 4)
        torch.testing.assert_close(noisy[rows], drawn * clean[rows] + (1 - drawn) * torch.from_numpy(noise), atol=1e-5,
                                   rtol=1e-4)  # fmt: skip
        assert float(time[number]) == pytest.approx(drawn)
        assert targets.weights[rows].tolist() == pytest.approx([max(1 - drawn, 0.05) ** -2] * 4, rel=1e-4)
        (alone, _) = task.targets(batch_of(seed))
        assert torch.equal(alone.main.chunks["image"].values, chunks.values[rows])


def test_the_loss_is_the_squared_error_of_the_velocity():
    task, batch = task_of(), batch_of(7, 200)
    changed, targets = task.targets(batch)
    z, time = changed.main.chunks["image"].values / 127.5 - 1, changed.main.chunks["image"].scalars.repeat_interleave(4)
    output = torch.randn(8, 4)
    distance = (1 - time)[:, None]
    expected = ((output - z) / distance - (targets.values - z) / distance).square().mean(1)
    assert bool((distance > 0.05).all())
    torch.testing.assert_close(task.losses(output, targets), expected, atol=1e-4, rtol=1e-4)


def test_a_batch_without_images_has_no_targets():
    batch = batch_of(1)
    empty = replace(batch, main=replace(batch.main, chunks={}))
    _, targets = task_of().targets(empty)
    assert targets.count == 0 and len(targets.values) == len(targets.slots) == 0


def test_times_are_spread_as_configured():
    task = task_of(mean=1.0, std=0.5)
    times = np.array([task.drawn((0, 0, number))[0] for number in range(2000)])
    logits = np.log(times / (1 - times))
    assert abs(logits.mean() - 1) < 0.05 and abs(logits.std() - 0.5) < 0.03


class Known(Model):
    """A model whose prediction is always the same item: the mean of the items that it knows, weighted by their
    likelihood for a noisy item, is then this item."""

    def __init__(self, item):
        torch.nn.Module.__init__(self)
        self.item, self.heads = item, {"draw": lambda hidden: self.item.expand(len(hidden) // 4, -1, -1).flatten(0, 1)}
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.read_at = []

    def plan(self, batch, **options):
        return batch

    def read(self, batch):
        chunks = batch.main.chunks["image"]
        self.read_at.append(float(chunks.scalars[0]))
        return type("Hidden", (), {"main": torch.zeros(*batch.main.tokens.shape, 1)})


@pytest.mark.parametrize("solver, reads", [("euler", 5), ("heun", 9)])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_flow_to_one_item_ends_at_this_item(solver, reads, guidance):
    item = torch.linspace(-1, 1, 16).view(4, 4)
    model, task, states = Known(item), task_of(solver=solver), []
    batch = batch_of(1, 2, 3)
    how = Procedure(name="draw", streams=Streams.of(3, 0), refining=Refining(steps=5), guidance=guidance,
                    without=batch if guidance != 1 else None, show=states.append)  # fmt: skip
    items = task.sample(model, batch, how)
    assert all(torch.equal(each, CHOPPER.joined(item)) for each in items)
    assert len(states) == 6 and not torch.equal(states[0][0], states[0][1])
    assert len(model.read_at) == reads * (2 if guidance != 1 else 1) and max(model.read_at) < 1


@settings(max_examples=15, deadline=None)
@given(
    filled=st.sets(st.integers(0, 3), min_size=1), solver=st.sampled_from(["euler", "heun"]), steps=st.integers(1, 6),
    grey=st.lists(st.integers(0, 255), min_size=2, max_size=2),
)  # fmt: skip
def test_tokens_that_are_not_filled_end_as_those_of_the_item(filled, solver, steps, grey):
    item = torch.linspace(-1, 1, 16).view(4, 4)
    how = Procedure(name="draw", streams=Streams.of(2, 0), refining=Refining(steps=steps), filled=sorted(filled))
    items = task_of(solver=solver).sample(Known(item), batch_of(*grey), how)
    for value, made in zip(grey, items):
        expected = CHOPPER.joined(item)[0].unfold(0, 2, 2).unfold(1, 2, 2).reshape(4, -1)
        patches = made[0].unfold(0, 2, 2).unfold(1, 2, 2).reshape(4, -1)
        for number in range(4):
            assert torch.equal(patches[number], expected[number] if number in filled else torch.full((4,), value))


def test_a_position_outside_the_item_is_refused():
    how = Procedure(name="draw", streams=Streams.of(1, 0), filled=[4])
    with pytest.raises(ValueError, match="filled contains the position 4; the item has the positions 0 to 3"):
        task_of().sample(Known(torch.zeros(4, 4)), batch_of(1), how)


def test_an_item_is_completed_from_python(run):
    trained, image = load_run(run), torch.full((1, 8, 8), 77, dtype=torch.uint8)
    made = trained.generate(inputs={"digit": 3}, draft=image, filled=range(2, 4), seed=1, guidance=2.0)[0]
    assert (made[:4] == 77).all() and (made[4:] != 77).any()
    with pytest.raises(ValueError, match="filled needs draft, an item without ids whose other tokens are kept"):
        trained.generate(inputs={"digit": 3}, filled=[1])


def test_a_model_that_returns_nan_is_refused():
    how = Procedure(name="draw", streams=Streams.of(1, 0), refining=Refining(steps=2))
    with pytest.raises(ValueError, match="NaN"):
        task_of().sample(Known(torch.full((4, 4), torch.nan)), batch_of(1), how)


@pytest.mark.parametrize("returned, described", [([], "0 items"), ([1, 2], "2 items"), (None, "None")], ids=str)
def test_another_number_of_items_than_samples_is_refused(returned, described):
    class Few(Flow):
        def sample(self, model, batch, how):
            return returned

    how = Procedure(name="draw", streams=Streams.of(3, 0))
    with pytest.raises(ContractError, match=f"tasks.draw: Few.sample returned {described}; expected: 3 items"):
        sampled("draw", Few(target="image"), Known(torch.zeros(4, 4)), batch_of(1, 2, 3), how)


def test_the_number_of_an_item_is_added_to_all_of_its_tokens():
    torch.manual_seed(0)
    layer = ScalarEmbedding(8)
    index = torch.tensor([0, 1, 0, 1, 2])
    chunks = Chunks(values=torch.zeros(5, 1), index=index, scalars=torch.tensor([0.25, 1.0]))
    vectors = layer(chunks)
    torch.testing.assert_close(vectors[[0, 2, 2]], vectors[[1, 3, 4]])
    assert not torch.allclose(vectors[0], vectors[2])
    without = layer(replace(chunks, scalars=None))
    torch.testing.assert_close(without, vectors[[2, 2, 2, 2, 2]])


YAML = """
inputs:
  digit: {use: category, size: 10}
  image: {use: image, size: 8, patch_size: 4, channels: 1}
model: {width: 16, depth: 1, heads: 2, context: 8, attention: same_sample}
tasks:
  draw: {use: flow, target: image, refining: {steps: 3}}
data: {dataset: digits, columns: {digit: label}}
training: {steps: 12, samples_per_step: 32, learning_rate: 0.003, input_dropout: {digit: 0.2}}
evaluation: {every: 6, rows: 32, generated: 4}
checkpoints: {every: 4}
logging: {tensorboard: false}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow")
    (folder / "flow.yaml").write_text(YAML)
    assert main(["train", str(folder / "flow.yaml"), f"out={folder / 'run'}"]) == 0
    return folder / "run"


def test_a_run_trains_evaluates_and_shows_its_items(run, capsys):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["val/loss"] for line in lines if "val/loss" in line]
    assert losses[-1] < losses[0]
    assert "data:image/png" in (run / "sheets" / "step-00000012.html").read_text()
    assert main(["evaluate", str(run), "--guidance", "2", "--steps", "2", "--temperature", "0.5"]) == 0
    assert main(["predict", str(run), "--input", "digit=3"]) == 0
    assert "`chopmix generate` generates" in capsys.readouterr().out


def test_an_item_depends_only_on_its_seed(run):
    trained = load_run(run)
    split = trained.open("val")
    how = Generating(seed=range(len(split)), guidance=2.0)
    indices = [SampleIndex(0, 0, number) for number in range(5)]
    together = generate_items(trained, "draw", split, indices, how, ("digit",))
    for index in indices:
        alone = generate_items(trained, "draw", split, [index], how, ("digit",))[index.number]
        assert (alone.int() - together[index.number].int()).abs().max() <= 1
    other = generate_items(trained, "draw", split, indices, replace(how, seed=range(100, 100 + len(split))), ("digit",))
    assert not torch.equal(other[0], together[0])


def test_a_generated_item_does_not_read_the_true_item(run):
    """Two samples with the same digit and seed have the same generated image."""
    trained = load_run(run)
    rows = trained.dataset().open("val")
    by_digit = {}
    for number in range(len(rows)):
        by_digit.setdefault(rows[number]["label"], []).append(number)
    first, second = next(numbers for numbers in by_digit.values() if len(numbers) > 1)[:2]
    split = trained.open("val")
    items = generate_items(trained, "draw", split, [SampleIndex(0, 0, first)], Generating(seed=[1] * len(split)))
    others = generate_items(trained, "draw", split, [SampleIndex(0, 0, second)], Generating(seed=[1] * len(split)))
    assert torch.equal(items[first], others[second])


def test_files_and_an_animation_are_written(run, tmp_path, capsys):
    names = ["--output", str(tmp_path / "a.png"), "--animate", str(tmp_path / "a.gif")]
    assert main(["generate", str(run), "--input", "digit=3", *names, "--seed", "1"]) == 0
    with Image.open(tmp_path / "a.png") as picture, Image.open(tmp_path / "a.gif") as animation:
        assert picture.size == (8, 8) and animation.n_frames >= 2
    names = ["--item", str(tmp_path / "a.png"), "--fill", "2:4", "--output", str(tmp_path / "c.png")]
    assert main(["generate", str(run), "--input", "digit=3", *names, "--seed", "2"]) == 0
    with Image.open(tmp_path / "a.png") as picture, Image.open(tmp_path / "c.png") as changed:
        assert picture.crop((0, 0, 8, 4)).tobytes() == changed.crop((0, 0, 8, 4)).tobytes()
        assert picture.crop((0, 4, 8, 8)).tobytes() != changed.crop((0, 4, 8, 8)).tobytes()
    capsys.readouterr()
    for words, message in [
        (["--item", str(tmp_path / "a.png"), "--fill", "4"], "position 4 is outside the item; positions are 0 to 3"),
        (["--item", "b.txt", "--fill", "1"], "--item b.txt: the image cannot be read"),
        (["--drafts", "2"], "drafts is 2, but `through` names no input"),
        (["--grammar", "a"], "constraints work only for left-to-right generation"),
        (["--prompt", "a"], "--prompt is for texts, but 'image' is not a text"),
        (["--order", "random"], "--order is for drafts of ids; 'image' is generated as a whole"),
    ]:
        assert main(["generate", str(run), "--input", "digit=3", "--output", str(tmp_path / "b.png"), *words]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, message",
    [
        ("size: 8, patch_size: 4", "needs the option 'size' of the image input"),
        ("augment", "inputs.image.augment: must be null, because the task 'draw' adds noise to the item"),
        ("std", "std must be above 0, not 0"),
        ("twice", "task 'draw' already hides tokens of input 'image'"),
        ("copies", "the input 'image' has no ids, so its items cannot be generated and judged"),
    ],
)
def test_what_a_flow_cannot_do_is_refused(tmp_path, capsys, change, message):
    texts = {
        "size: 8, patch_size: 4": ("size: 8, patch_size: 4", "position: null, patch_size: 4"),
        "augment": ("channels: 1}", "channels: 1, augment: {use: image_augmentation, shift: 1}}"),
        "std": ("target: image,", "target: image, std: 0,"),
        "twice": ("data:", "  again: {use: flow, target: image}\ndata:"),
        "copies": ("refining: {steps: 3}", "metrics: {copies: {use: copies}}"),
    }
    (tmp_path / "a.yaml").write_text(YAML.replace(*texts[change]))
    assert main(["train", str(tmp_path / "a.yaml"), f"out={tmp_path / 'run'}"]) == 2
    assert message in capsys.readouterr().err


def test_an_encoder_cannot_read_the_target(tmp_path):
    text = YAML.replace("attention: same_sample}", "attention: same_sample, encoder: {depth: 1, context: 8}}")
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError):
        load_config(tmp_path / "a.yaml")


def test_a_classifier_and_a_flow_share_a_set(tmp_path):
    """The classifier reads the noisy image in training, and the clean image of time 1 in an evaluation."""
    text = YAML.replace("inputs:\n  digit: {use: category, size: 10}\n", "inputs:\n").replace(
        ", columns: {digit: label}", ""
    )
    text = text.replace("  draw:", "  digit: {use: classification, target: label}\n  draw:")
    text = text.replace(", input_dropout: {digit: 0.2}", "")
    (tmp_path / "a.yaml").write_text(text)
    assert main(["train", str(tmp_path / "a.yaml"), f"out={tmp_path / 'run'}"]) == 0
    run = load_run(tmp_path / "run")
    batch = run.open("val").read([SampleIndex(0, 0, 0)])
    changed = with_targets(batch, run.tasks)
    assert changed.main.chunks["image"].scalars is not None and batch.main.chunks["image"].scalars is None
    apart = run.open("val").batches([SampleIndex(0, 0, 0)], run.tasks)
    assert [set(each.targets) for each in apart] == [{"digit"}, {"draw"}]
    assert apart[0].main.chunks["image"].values.dtype == torch.uint8


def weights(folder):
    return load_run(folder, "last").model.state_dict()


@pytest.mark.system
def test_a_flow_resumes_bit_equal_after_a_kill_and_trains_in_two_processes_in_bfloat16_and_compiled(run, tmp_path):
    file = tmp_path / "flow.yaml"
    file.write_text(YAML)
    command = [sys.executable, ROOT / "train.py", file, f"out={tmp_path / 'killed'}"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as killed:
        for line in killed.stderr:
            if line.startswith("step 6 "):
                killed.send_signal(signal.SIGKILL)
                break
    assert main(["train", str(file), f"out={tmp_path / 'killed'}"]) == 0
    expected = weights(run)
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path / "killed").items())
    done = train_together(tmp_path, 2, file, f"out={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    assert all(torch.allclose(value, expected[name], atol=1e-4) for name, value in weights(tmp_path / "two").items())
    for option in ("training.precision=bfloat16", "training.compile=true"):
        words = [option, f"out={tmp_path / option[9:12]}"]
        done = subprocess.run([sys.executable, ROOT / "train.py", file, *words], cwd=tmp_path, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        assert all(torch.allclose(value, expected[name], atol=0.02) for name, value in weights(words[1][4:]).items())


def test_a_flow_is_not_exported(run, tmp_path, capsys):
    assert main(["export", str(run), str(tmp_path / "published")]) == 2
    assert "run cannot be exported: " in capsys.readouterr().err
