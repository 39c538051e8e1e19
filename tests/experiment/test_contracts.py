"""Mistakes in a user-defined tokenizer, task or data set: the message names the class, what it returned, and what is
expected."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import chopmix
import numpy as np
import own_modality
import pytest
import torch
from chopmix.commands.cli import main
from chopmix.data.collate import Inputs
from chopmix.data.reader import Reader
from chopmix.data.skipped import BadSamples
from chopmix.experiment.build import build_choppers
from chopmix.experiment.settings.config import load_config
from chopmix.files.reading import DataError
from chopmix.models.batch import Batch, SetPlan, Targets
from chopmix.models.contract import ContractError, check_embedded, described, is_user_defined
from chopmix.models.heads import Tied, VocabularyHead
from chopmix.models.tokens import plain_tokens
from chopmix.tasks.base import targets_of, terms_of
from chopmix.tasks.language_modeling import LanguageModeling
from chopmix.tokenizers.base import Chopper, Chunk, chopped, constructor_problem
from chopmix.tokenizers.chopping.packing import pack
from chopmix.tokenizers.image import ImageChopper
from own_modality import LidarChopper, LidarTokenizer
from torch import nn

SCAN = np.ones(32, dtype=np.float32)
VALUES, ANGLES = torch.zeros(4, 8), torch.zeros(4, 1)


@dataclass(frozen=True, kw_only=True)
class FixedChunk(LidarChopper):
    """A chopper that returns the field `chunk` and counts four tokens."""

    chunk: object = None

    def chop(self, item):
        return self.chunk

    def count(self, item):
        return 4


def chunk(**fields) -> Chunk:
    """A chunk whose fields may have wrong types: the tests check types only in the constructor of `Chunk`."""
    result = object.__new__(Chunk)
    for name, value in (vars(Chunk(VALUES, 4, ANGLES)) | fields).items():
        object.__setattr__(result, name, value)
    return result


class NoAxes(FixedChunk):
    axes: ClassVar = ()


MISTAKES = [
    (VALUES, "chop returned a tensor of shape (4, 8); expected: a Chunk(values, count, coordinates)"),
    (None, "chop returned None; expected: a Chunk"),
    (chunk(values=[1, 2]), "chop returned a list as values; expected: a tensor"),
    (chunk(count=torch.tensor(4)), "chop returned a tensor of shape () as count; expected: a whole number of tokens"),
    (chunk(count=-1), "chop returned -1 as count; expected: a whole number of tokens"),
    (chunk(count=5), "count returned 4, but chop returned 5 tokens; they must agree"),
    (
        chunk(coordinates=torch.zeros(4)),
        "chop returned a tensor of shape (4,) as coordinates; expected: (4, 1), one row per "
        "token and one column per axis (angle)",
    ),
    (chunk(coordinates=torch.zeros(3, 1)), "chop returned a tensor of shape (3, 1) as coordinates; expected: (4, 1)"),
    (chunk(coordinates=torch.zeros(4, 2)), "chop returned a tensor of shape (4, 2) as coordinates; expected: (4, 1)"),
    (chunk(coordinates=[[0.0]] * 4), "chop returned a list as coordinates; expected: (4, 1)"),
    (chunk(next_ids=VALUES[:3, 0]), "chop returned a tensor of shape (3,) as next_ids; expected: one id per token"),
]


@pytest.mark.parametrize(("returned", "message"), MISTAKES)
def test_the_result_of_a_chopper_is_checked_at_the_first_item(returned, message):
    with pytest.raises(ContractError, match=re.escape(f"inputs.scan: FixedChunk.{message}")):
        pack([[("scan", SCAN)]], {"scan": FixedChunk(chunk=returned)}, 8, ("order", "angle"))


def test_coordinates_need_axes():
    """Without axes, positions and graphs could not use the coordinates."""
    with pytest.raises(
        ContractError, match=r"NoAxes.chop returned .* but its `axes` are empty, so that no position can use"
    ):
        pack([[("scan", SCAN)]], {"scan": NoAxes(chunk=chunk())}, 8)
    assert pack(
        [[("scan", SCAN)]], {"scan": FixedChunk(chunk=chunk())}, 8, ("order", "angle")
    ).tokens.position.shape == (
        1,
        8,
        2,
    )


def test_an_item_that_a_chopper_cannot_process_is_an_error():
    with pytest.raises(ContractError, match=r"LidarChopper.chop cannot process 'scan.npy': .*define `decode`"):
        chopped("scan", LidarChopper(), "scan.npy")
    with pytest.raises(ContractError, match=r"ImageChopper.chop cannot process a list"):
        chopped("image", ImageChopper(), [1, 2])
    with pytest.raises(DataError, match="(?s)^scan: .*divide axis"):  # a bad item, not a bad chopper
        chopped("scan", LidarChopper(), SCAN[:9])


def test_the_output_of_an_embedder_is_checked():
    class Lidar(nn.Module):
        pass

    check_embedded("scan", Lidar(), torch.zeros(2, 4, 16), 8, 16)
    for output, text in (
        (torch.zeros(8, 15), r"a tensor of shape \(8, 15\)"), (torch.zeros(7, 16), r"a tensor of shape \(7, 16\)"),
        ((torch.zeros(8, 16),), "a tuple"), (None, "None"),
    ):  # fmt: skip
        message = rf"inputs.scan: Lidar returned {text}; expected \(8, 16\): one vector of the model's width"
        with pytest.raises(ContractError, match=message):
            check_embedded("scan", Lidar(), output, 8, 16)


def test_the_constructor_of_an_embedder_takes_three_arguments():
    assert constructor_problem(LidarTokenizer) is None
    assert constructor_problem(lambda *arguments, **options: None) is None
    assert constructor_problem(lambda chopper, width, context, more=1, *, key=1: None) is None
    assert "takes (width, chopper, context, more); expected: (chopper, width, context, *" in constructor_problem(
        lambda width, chopper, context, more: None
    )


@pytest.mark.parametrize(
    ("value", "description"),
    [
        (torch.zeros(2), "a tensor of shape (2,)"),
        ("x" * 99, "a str"),
        (3, "3"),
        ({}, "a dict"),
        (iter([]), "a list_iterator"),
    ],
)
def test_values_are_described(value, description):
    assert described(value) == description


# ------------------------------------------------------------------------------------- from a YAML to the message

YAML = """
inputs: {scan: own_modality:NAME}
model: {width: 16, depth: 1, heads: 2, context: 32, attention: same_sample}
tasks: {side: {use: classification, target: side}}
data: {dataset: own_modality:Rooms, bad_share: 1}
training: {steps: 1, samples_per_step: 4, device: cpu}
"""


class Wide(LidarTokenizer):
    def forward(self, chunks):
        return super().forward(chunks)[:, :15]


class Loses(LidarTokenizer):
    def forward(self, chunks):
        return super().forward(chunks)[1:]


class FitsOnly(LidarTokenizer):
    @dataclass(frozen=True, kw_only=True)
    class Chopper(LidarChopper):
        def fit(self, items, role):
            return self


class GivesTensors(LidarTokenizer):
    class Chopper(LidarChopper):
        def chop(self, item):
            return torch.as_tensor(item)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Wide, "inputs.scan: Wide returned a tensor of shape (16, 15); expected (16, 16)"),
        (Loses, "inputs.scan: Loses returned a tensor of shape (15, 16); expected (16, 16)"),
        (FitsOnly, "inputs.scan: Chopper has `fit` but no `save`; define all three of fit, save and load"),
        (GivesTensors, "inputs.scan: Chopper.chop returned a tensor of shape (32,); expected: a Chunk"),
    ],
)
def test_the_command_line_prints_the_mistake_of_a_tokenizer(tmp_path, capsys, monkeypatch, kind, message):
    """`bad_share: 1` allows any bad samples, but no mistakes of the tokenizer."""
    monkeypatch.setattr(own_modality, kind.__name__, kind, raising=False)
    monkeypatch.setattr(kind, "__module__", "own_modality")
    (tmp_path / "x.yaml").write_text(YAML.replace("NAME", kind.__name__))
    assert main(["train", str(tmp_path / "x.yaml"), f"out={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_a_file_for_a_tokenizer_without_decode_is_refused(tmp_path, capsys):
    (tmp_path / "x.yaml").write_text(YAML.replace("NAME", "LidarTokenizer"))
    np.save(tmp_path / "scan.npy", SCAN)
    assert main(["train", str(tmp_path / "x.yaml"), f"out={tmp_path / 'run'}"]) == 0
    command = ["predict", str(tmp_path / "run"), "--input", f"scan={tmp_path / 'scan.npy'}", "--trust", "own_modality"]
    assert main(command) == 2
    assert "inputs.scan: LidarChopper.chop cannot process" in capsys.readouterr().err


def test_choppers_are_fitted_and_stored_in_one_step(tmp_path):
    """`build_choppers` stores the learned values, reads them again without the data, and writes no other files."""
    (tmp_path / "x.yaml").write_text("""
inputs: {scan: own_modality:LidarTokenizer, side: {use: text, encoding: characters}}
model: {width: 16, depth: 1, heads: 2, context: 32, attention: same_sample & (causal | from(scan))}
tasks: {side: {use: language_modeling, target: side}}
data: {dataset: own_modality:Rooms}
training: {steps: 1, samples_per_step: 4, device: cpu}
""")
    config = load_config(tmp_path / "x.yaml")
    assets = tmp_path / "assets"
    learned = build_choppers(config, assets, config.data.dataset())
    assert [path.relative_to(assets).as_posix() for path in sorted(assets.rglob("*.json"))] == ["side/encoding.json"]
    assert build_choppers(config, assets) == learned and learned["side"].generated
    assert learned["scan"].vocabulary is None and learned["side"].vocabulary.symbols == "".join(
        sorted(set("leftright"))
    )
    shutil.rmtree(assets)
    with pytest.raises(ValueError, match="encoding.json does not exist"):
        build_choppers(config, Path(assets))
    assert isinstance(learned["scan"], Chopper)


class FixedRows(chopmix.SampleDataset):
    """A data set whose `open` returns the attribute `result`."""

    columns = ("scan", "label")
    result = None

    def open(self, split):
        return self.result


class NoMappings(chopmix.Samples):
    """Samples that are no mappings."""

    keys = ("a", "b")

    def row(self, number, names=None):
        return [number]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "data.dataset: FixedRows.open('train') returned None; expected: Samples"),
        ([{"scan": SCAN, "label": 1}], "data.dataset: FixedRows.open('train') returned a list; expected: Samples"),
    ],
)
def test_the_result_of_open_of_a_data_set_is_checked(monkeypatch, result, message):
    monkeypatch.setattr(FixedRows, "result", result)
    with pytest.raises(ContractError, match=re.escape(message)):
        FixedRows().opened("train")
    with pytest.raises(DataError, match="has no split 'nonsense'; possible: train, val"):
        FixedRows().opened("nonsense")


def test_samples_that_are_no_mappings_are_refused():
    reader = Reader(NoMappings(), {}, Inputs(columns={"scan": "scan"}), BadSamples("train", ("a", "b"), 1.0))
    message = "data.dataset: NoMappings returned a list as sample 'a'; expected: a mapping from columns to values"
    with pytest.raises(ContractError, match=message):
        reader.item(0)


# ------------------------------------------------------------------------------------------------------------- a task


@pytest.mark.parametrize("result, description", [
    (None, "None"), ((None, None), "(None, None)"), ((Batch, 3), "(a type, 3)"),
])  # fmt: skip
def test_the_targets_of_a_task_are_checked_in_every_batch(result, description):
    class Asking(chopmix.Task):
        def targets(self, batch):
            return result

    planned = SetPlan(tokens=plain_tokens(1, 2), chunks={})
    message = f"tasks.mine: Asking.targets returned {description}; expected: (batch, Targets)"
    with pytest.raises(ContractError, match=re.escape(message)):
        targets_of("mine", Asking(), Batch(main=planned))


class Narrow(VocabularyHead):
    """Returns the vectors instead of logits."""

    def forward(self, x, targets=None):
        return x


class Means(LanguageModeling):
    """Returns a loss for each target instead of their sum."""

    def terms(self, output, targets):
        return {"loss": output.logsumexp(-1)}


class Bare(LanguageModeling):
    """Returns a loss without a name."""

    def terms(self, output, targets):
        return output.sum()


@pytest.mark.parametrize("task, head, message", [
    (LanguageModeling, Narrow, r"tasks\.lm\.head: Narrow returned a tensor of shape \(3, 4\) for 3 targets; "
     r"expected: \(3, 9\)"),
    (Means, Tied, r"tasks\.lm: Means\.terms returned \{'loss': 'a tensor of shape \(3,\)'\}; expected: losses by name"),
    (Bare, Tied, r"tasks\.lm: Bare\.terms returned a tensor of shape \(\); expected: losses by name"),
])  # fmt: skip
def test_the_results_of_a_head_and_a_loss_are_checked(task, head, message):
    task, table = task(target="text"), nn.Embedding(9, 4)
    head, targets = head(table), Targets(values=torch.zeros(3, dtype=torch.long), count=3)
    with pytest.raises(ContractError, match=message):
        terms_of("lm", task, head, head(torch.randn(3, 4)), targets)


def test_targets_that_a_loss_cannot_process_are_an_error():
    targets = Targets(values=torch.tensor([0, 12]), count=2)
    with pytest.raises(
        ContractError, match=r"tasks\.lm: LanguageModeling\.terms failed: Tied returned .*\(2, 9\) for 2 targets; "
    ):
        terms_of("lm", LanguageModeling(target="text"), Tied(nn.Embedding(9, 4)), torch.randn(2, 9), targets)


def test_user_defined_parts_are_recognized_by_their_module():
    task = LanguageModeling(target="text")
    assert is_user_defined(Means(target="text")) and is_user_defined(Narrow(nn.Embedding(9, 4)))
    assert not is_user_defined(task) and not is_user_defined(Tied(nn.Embedding(9, 4)))
