"""Mistakes in configurations: one error has a line with the position and a message for each of them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import yaml
from checkout import CONFIGS
from chopmix.experiment import build as model
from chopmix.experiment.settings.config import _without, config_from_tree, load_config
from chopmix.experiment.settings.document import ConfigError
from chopmix.files.trust import Trust

PLAIN = """\
inputs:    {text: {use: text, encoding: bytes}}
model:     {width: 32, depth: 2, heads: 4, context: 16, attention: causal}
tasks:     {lm: {use: language_modeling, target: text}}
data:      {dataset: tiny_shakespeare}
training:  {steps: 20, tokens_per_step: 64, learning_rate: 1e-3}
"""


@pytest.fixture
def plain(tmp_path) -> Path:
    return write(tmp_path, PLAIN)


def write(folder: Path, text: str) -> Path:
    path = folder / "x.yaml"
    path.write_text(textwrap.dedent(text))
    return path


def lines_of(path, *overrides: str) -> list[str]:
    """The lines of the error of a configuration, one for each mistake, without the folder of the file."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return [line.replace(str(path), "x.yaml") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize("sound", ["{use: audio, normalize: clip}", "{use: audio_stem}"])
def test_tokens_that_depend_on_the_complete_sound_are_refused_with_attention_over_time(plain, sound):
    overrides = (f"inputs.sound={sound}", "model.attention=same_sample & causal(seconds)")
    assert any("inputs.sound: each token depends on the complete item" in line for line in lines_of(plain, *overrides))
    assert not any("complete item" in line for line in lines_of(plain, overrides[0], "model.attention=causl"))


# ---- wrong values --------------------------------------------------------------------------------------------------


def test_all_mistakes_are_reported_at_once(tmp_path):
    path = write(
        tmp_path,
        """\
        inputs:
          text: {use: text, encodng: bytes}
        model:
          width: 32
          depth: 2
          heads: 5
          context: 16
          attention: causl
          block:
            norm: {use: rms_nrm, gain: false}
        tasks:
          lm: {use: language_modeling, target: txt}
        data: {}
        training:
          steps: 20.5
          steps: 21
          tokens_per_step: 70
        """,
    )
    lines = lines_of(path, "training.sede=1")
    expected = [
        r"x.yaml:2  inputs\.text\.encodng: TextTokenizer has no such key; did you mean 'encoding'\?",
        r"x.yaml:6  model\.heads: 5 does not divide width \(32\); possible: 4 or 8",
        r"x.yaml:8  model\.attention: .*no graph named 'causl'.*did you mean 'causal'\?",
        r"x.yaml:10  model\.block\.norm\.use: nothing is named 'rms_nrm'; possible: layer_norm, rms_norm.*'rms_norm'\?",
        r"x.yaml:12  tasks\.lm\.target: no input is named 'txt'; did you mean 'text'\?",
        r"x.yaml:13  data: Data needs 'dataset': a name or .*tiny_shakespeare",
        r"x.yaml:16  training\.steps: is a repeated key; first at line 15",
        r"x.yaml:17  training\.tokens_per_step: must be a multiple of context \(16\), such as 64 or 80, not 70",
        r"command line  training\.sede: Training has no such key; did you mean 'seed'\?",
    ]
    assert len(lines) == len(expected), "\n".join(lines)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.match(pattern, line), line


WRONG = [
    ("training.steps=2.5", "training.steps: must be a whole number of at least 1 or null, not 2.5"),
    ("training.steps=true", "training.steps: must be a whole number of at least 1 or null, not true"),
    ("training.steps=many", "training.steps: must be a whole number of at least 1 or null, not 'many'"),
    ("training.steps=0", "training.steps: must be at least 1, not 0"),
    ("training.learning_rate=-1", "training.learning_rate: must be more than 0, not -1"),
    ("training.learning_rate=.nan", "training.learning_rate: must be a number of more than 0 or null, not nan"),
    ("training.ema=1", "training.ema: must be more than 0 and less than 1, not 1"),
    ("training.clip=0", "training.clip: must be more than 0"),
    ("training.compile='yes'", "training.compile: must be 'auto' or true or false, not 'yes'"),
    (
        "training.precision=float23",
        "must be 'auto' or 'fast' or 'float32' or 'bfloat16', not 'float23'; did you mean 'float32'?",
    ),
    ("training.optimizer=adam", "training.optimizer: nothing is named 'adam'; possible: adamw, muon"),
    (
        "training.optimizer.betas=[1]",
        "betas: must be a list of 2 values (a number of at least 0 and less than 1, a number of",
    ),
    (
        "training.optimizer.betas=[0.9, 1.0]",
        "training.optimizer.betas: must be a list of 2 values (a number of at least 0 and less",
    ),
    ("inputs.text={same_as: 0.5}", "inputs.text.same_as: no input is named 0.5"),
    (
        "inputs.text.position={use: sinusoidal, longest: -1}",
        "inputs.text.position.longest: must be at least 1",
    ),
    ("training.optimizer.epsilon=-1", "training.optimizer.epsilon: must be more than 0, not -1"),
    (
        "training.optimizer.weight_decay=-1",
        "training.optimizer.weight_decay: must be at least 0, not -1",
    ),
    ("training.schedule={use: 3}", "training.schedule: 'use' must be a name, not 3; possible: constant, cosine"),
    ("training.schedule.warmup=30", "training.schedule: warmup (30) must lie between 0 and the number of steps (20)"),
    ("training.rows_per_micro_batch=5", "training.rows_per_micro_batch: must be at most the 4 rows of a step, not 5"),
    ("training=3", "training: must be a mapping (possible keys: steps, minutes, epochs, stop, tokens"),
    ("trainign.steps=3", "trainign: there is no such section; did you mean 'training'?"),
    ("zzz=3", "zzz: there is no such section; possible: inputs, model, tasks"),
    ("evaluation.every=0", "evaluation.every: must be at least 1, not 0"),
    ("evaluation.sample_tokens=-1", "evaluation.sample_tokens: must be at least 0, not -1"),
    ("evaluation.prompt=5", "evaluation.prompt: must be text, not 5"),
    ("checkpoints.keep=0", "checkpoints.keep: must be at least 1, not 0"),
    ("logging.every=0", "logging.every: must be at least 1, not 0"),
    ("logging.tensorboard=1", "logging.tensorboard: must be true or false, not 1"),
    ("data.documents=joint", "data.documents: must be 'joined' or 'separate', not 'joint'; did you mean 'joined'?"),
    ("data.dataset=tiny_shakespear", "did you mean 'tiny_shakespeare'?"),
    ("model.depth=9223372036854775808", "model.depth: must be at most 10,000, not 9223372036854775808"),
    ("model.core_tokens=-1", "model.core_tokens: must be at least 0, not -1"),
    ("model.core_tokens=2", "model.core_tokens: must be 0: dataset 'tiny_shakespeare' is a text corpus"),
    ("training.steps=1000000000000000000000000000000", "training.steps: must be at most 1,099,511,627,776"),
    (
        "training.tokens_per_step=68719476736",
        "training.tokens_per_step: must be at most 16,777,216 (1,048,576 rows of 16",
    ),
    (
        "tasks={m: {use: masked_modeling, target: text}, d: {use: masked_diffusion, target: text}}",
        "tasks.d: task 'm' already hides tokens of input 'text': keep one of the two tasks, or add a second input",
    ),
    ("training.seed=-1", "training.seed: must be at least 0, not -1"),
    ("model.block.key_value_heads=-1", "-1 does not divide heads (4); possible: 1"),
    ("model.block.feed_forward.ratio=-0.5", "model.block: ratio must be more than 0 and at most 1,024, not -0.5"),
    ("model.width=0", "model.width: must be at least 1, not 0"),
    ("model.dropout=1.5", "model.dropout: dropout.embedding is 1.5; it must be at least 0 and below 1"),
    ("model.dropout=true", "model.dropout: must be a number or a mapping (possible keys: embedding"),
    ("model.dropout.dept=0.1", "model.dropout.dept: Dropout has no such key; did you mean 'depth'?"),
    (
        "model.block.key_value_heads=3",
        "model.block.key_value_heads: 3 does not divide heads (4); possible: 2 or 4",
    ),
    ("model.block.norm=null", "model.block.norm: must be a name or {use: NAME, ...} (possible: layer_norm, rms_norm)"),
    ("model.block.feed_forward.approximate=x", "model.block: approximate must be 'none' or 'tanh', not 'x'"),
    ("model.attention=[causal, windw(3)]", "model.attention.1: attention 'windw(3)', character 1: no graph named"),
    ("model.attention=[]", "model.attention: must have at least one expression"),
    ("model.attention=neighbourhood(1, row)", "no axis named 'row'; possible: order"),
    ("model.position={base: 5}", "model.position: needs 'use', a name; possible: rotary, relative_bias, alibi"),
    ("model.position={use: rotary, per_axis: {row: 4}}", "model.position: rotary: no position axis named 'row'"),
    ("model.position={use: rotary, per_axis: {order: 3}}", "rotary: axis 'order' has 3 channels"),
    ("model.steps.x=3", "model.steps: model has no such key"),
    ("model.width.x=3", "model.width.x: model.width is 32, which has no keys"),
    ("inputs.text.closing=[3]", "inputs.text.closing: TextTokenizer has no such key"),
    ("inputs.text.marks={a: 3}", "inputs.text.marks: TextTokenizer has no such key"),
    (
        "inputs.text.use=txt",
        "inputs.text.use: nothing is named 'txt'; possible: audio, audio_patches, audio_stem, category, "
        "codes, encoded, image, image_ids, noted_text, score, sensor, text, video",
    ),
    (
        "inputs.text.use=encodings",
        "inputs.text.use: nothing is named 'encodings'; possible: audio, audio_patches, audio_stem, "
        "category, codes, encoded, image, image_ids, noted_text, score, sensor, text, video",
    ),
    ("inputs.text.fitted=3", "inputs.text.fitted: TextTokenizer has no such key"),
    ("inputs.text.position.length=8", "inputs.text.position.length: must be at least the context (16 tokens), not 8"),
    ("inputs.text.encoding=bpe", "inputs.text.encoding: bpe needs 'vocabulary'"),
    ("inputs.sound={use: audio, rate: 1000000000}", "inputs.sound: rate must be at most 1,000,000, not 1000000000"),
    ("inputs.sound={use: audio, window: 1e308}", "inputs.sound: window must be at most 1,000,000, not 1e+308"),
    (
        "inputs.sound={use: audio, window: 1000}",
        "inputs.sound: window must be at most 1,048,576 samples (65.536 seconds), not 1000",
    ),
    (
        "inputs.sound={use: audio, hop: 1e-9}",
        "inputs.sound: hop must be at least one sample (6.25e-05 seconds), not 1e-09",
    ),
    ("inputs.sound={use: audio, augment_wave: {noise: [20, 5]}}", "noise must be [lowest, highest] dB, not [20"),
    ("inputs.sound={use: audio, augment_wave: {speed: 1.0}}", "speed at least 0 and below 1"),
    (
        "inputs.image={use: image, augment: {use: image_augmentation, shift: 1}}",
        "inputs.image.augment: operates on batches of images of one shape",
    ),
    ("tasks.lm.metrics=exact_match", "tasks.lm.metrics: must be a list of"),
    (
        "inputs.text.vocabulary=300",
        "inputs.text.vocabulary: is for encodings bpe and numbers only; 'bytes' has a fixed vocabulary",
    ),
    ("data.workers=-1", "data.workers: must be auto, or from 0 to 1,024, not -1"),
    ("training.stop={patience: 0}", "training.stop: patience must be from 1 to 1,000,000"),
    ("data.split={val: 2}", "data.split: val and test must be shares with a sum below 1, not 2 and 0"),
    (
        "inputs.train={use: image}",
        "inputs.train: 'train' is not a valid name: torch modules have an attribute of this name",
    ),
    ("inputs.a-b={use: image}", "inputs.a-b: 'a-b' is not a valid name: letters, digits and _ only"),
    ("inputs={}", "inputs: must name at least one"),
    (
        "inputs.again={same_as: text, type: tex}",
        "no other input with its own type is named 'tex'; did you mean 'text'?",
    ),
    ("inputs.again={same_as: text, type: again}", "no other input with its own type is named 'again'"),
    ("inputs=3", "inputs: must be a mapping, not 3"),
    ("tasks={}", "tasks: must name at least one"),
    ("tasks.lm={use: language_modeling}", "tasks.lm: LanguageModeling needs 'target': text"),
    (
        "tasks.lm.use=task",
        "tasks.lm.use: nothing is named 'task'; possible: classification, ctc, flow, forecast, language_modeling, "
        "masked_diffusion, masked_modeling, next_item, policy_gradient, reconstruction, regression, "
        "sequence_to_sequence",
    ),
    ("data.dataset=nowhere.at_all:Dataset", "data.dataset: cannot import 'nowhere.at_all': ModuleNotFoundError"),
    ("data.dataset=json:JSONDecoder", "data.dataset: 'json:JSONDecoder' is not a subclass of Dataset"),
    ("model.block.norm=torch.nn:LayrNorm", "module 'torch.nn' has no class 'LayrNorm'"),
    ("steps", "steps: an override has the form key.sub=value"),
    ("model.heads=[1", "model.heads: invalid YAML: while parsing a flow sequence"),
]


def test_an_expression_that_a_yaml_list_splits_at_its_commas_is_named(plain):
    first, *others = lines_of(plain, "model.attention=[causal & neighbourhood(1, row, column), causal]")
    hint = "in a YAML list, put an expression with commas in quotes"
    assert first.endswith(f"the expression ends where ')' is expected; {hint}") and len(others) == 2


@pytest.mark.parametrize(("override", "message"), WRONG, ids=[override for override, _ in WRONG])
def test_one_mistake_is_one_line(plain, override, message):
    (line,) = lines_of(plain, override)
    assert line.startswith("command line  ") and message in line


def test_an_odd_width_is_refused_with_sinusoidal_positions(plain):
    (line,) = lines_of(plain, "model.width=33", "model.heads=3", "inputs.text.position=sinusoidal")
    assert "model.width: must be even for sinusoidal positions (inputs.text.position), not 33" in line


FILES = {
    "": "x.yaml:1  the file is empty; it must be a mapping with inputs, model",
    "# only a comment\n": "x.yaml:1  the file is empty",
    "- 1\n- 2\n": "x.yaml:1  the file is [1, 2]; it must be a mapping",
    "inputs: {a: 1\nmodel: 2\n": "x.yaml:2  invalid YAML: while parsing a flow mapping",
    "inputs: 1\n---\nmodel: 1\n": "x.yaml:2  invalid YAML: expected a single document",
    "\nx: !!python/object/apply:os.system [ls]\n": "x.yaml:2  invalid YAML: tags (!) are not allowed",
    "x: &a [1]\ny: *a\n": "x.yaml:1  invalid YAML: anchors (&) and aliases (*) are not allowed",
    "x: *a\n": "x.yaml:1  invalid YAML: anchors (&) and aliases (*) are not allowed",
    "x: \x07\n": "x.yaml  invalid YAML: unacceptable character",
}


@pytest.mark.parametrize(("text", "message"), FILES.items())
def test_files_that_are_no_configuration_are_refused(tmp_path, text, message):
    (line,) = lines_of(write(tmp_path, text))
    assert message in line


def test_missing_sections_and_files_are_named(plain):
    assert lines_of(write(plain.parent, "out: here\n"))[0] == ("x.yaml:1  the configuration needs 'inputs'")
    (line,) = lines_of(plain.with_name("y.yaml"))
    assert line.endswith("there is no such file; did you mean 'x.yaml'?")
    (line,) = lines_of(plain.parent)
    assert line.endswith("is a folder, not a file; YAML files in it: x.yaml")
    (line,) = lines_of(plain.parent / "no" / "z.yaml")
    assert "there is no such file; there is no folder" in line
    plain.write_bytes(b"a: \xff\n")
    (line,) = lines_of(plain)
    assert "cannot be read: x.yaml, line 1: byte 3 (0xff) is not valid UTF-8" in line


def test_mistakes_in_a_tree_have_no_line():
    tree = yaml.safe_load(PLAIN)
    tree["model"]["wdith"] = 3
    with pytest.raises(ConfigError, match=r"^config.yaml  model.wdith: model has no such key; did you mean 'width'\?$"):
        config_from_tree(tree)
    with pytest.raises(ConfigError, match=r"^config.yaml  must be a mapping with inputs, .*, not 3$"):
        config_from_tree(3)


# ---- user-defined classes -----------------------------------------------------------------------------------------

OUTSIDE = """
from __future__ import annotations
from dataclasses import dataclass
from typing import Annotated, ClassVar
from annotated_types import Gt
from torch import nn
from chopmix.data.base import Dataset
from chopmix.models.layers.norms import Norm
from chopmix.tokenizers.base import Chopper

@dataclass(frozen=True, kw_only=True)
class LidarChopper(Chopper):
    axes: ClassVar[tuple[str, ...]] = ("angle",)
    beams: int = 8

class LidarTokenizer(nn.Module):
    Chopper = LidarChopper
    def __init__(self, chopper, width, context, *, gain: Annotated[float, Gt(0)] = 1.0):
        super().__init__()
        self.size = (chopper.beams, width, gain)

class Narrow(LidarTokenizer):
    def __init__(self, chopper, width): ...

class Moons(Dataset):
    def __init__(self, *, phase: str = "new"):
        self.phase = phase

class Odd(Norm):
    def __init__(self, *, x: NotThere = 1): ...
"""


@pytest.fixture
def outside(tmp_path, monkeypatch) -> str:
    name = f"outside_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(OUTSIDE)
    (tmp_path / f"{name}_broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_user_defined_classes_are_loaded_and_need_trust(plain, outside):
    overrides = [f"inputs.lidar={{use: '{outside}:LidarTokenizer', beams: 4}}", f"data.dataset={outside}:Moons"]
    config = load_config(plain, [*overrides, "model.attention=causal & window(3, angle)"])
    part = config.inputs["lidar"]
    assert part(part.of(part.target.Chopper)(), 6, 9).size == (4, 6, 1.0)
    assert config.data.dataset().phase == "new"
    assert config_from_tree(yaml.safe_load(yaml.safe_dump(config.tree)), trust=Trust.of([outside])).tree == config.tree
    with pytest.raises(
        ConfigError, match=f"code outside chopmix, which is not executed for files from someone else.*--trust {outside}"
    ):
        config_from_tree(config.tree)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("inputs.lidar={use: 'NAME:LidarTokenizer', beam: "
         "4}", "lidar.beam: LidarTokenizer has no such key; did you mean"),
        ("inputs.lidar={use: 'NAME:LidarTokenizer', gain: 0}", "lidar.gain: must be more than 0, not 0"),
        ("inputs.lidar=NAME:LidarChopper", "lidar: 'NAME:LidarChopper' is not a subclass of torch.nn.Module with a "
         "class Chopper"),
        ("inputs.lidar=NAME:Narrow", "lidar: Narrow takes (chopper, width); expected: (chopper, width, "
         "context, *, YAML keys)"),
        ("inputs.lidar=collections:OrderedDict", "lidar: 'collections:OrderedDict' is not a subclass of "
         "torch.nn.Module with a class Chopper"),
        ("model.block.norm=NAME:Moons", "norm: 'NAME:Moons' is not a subclass of Norm"),
        ("data.dataset=subprocess:Popen", "dataset: 'subprocess:Popen' is not a subclass of Dataset"),
        ("inputs.lidar=NAME:LidarTokeniser", "has no class 'LidarTokeniser'; did you mean 'LidarTokenizer'?"),
        ("inputs.lidar=NAME_broken:X", "cannot import 'NAME_broken': ZeroDivisionError: division by zero"),
        ("model.block.norm=NAME:Odd", "norm: the signature of 'NAME:Odd' cannot be read as a schema: name 'NotThere'"),
    ],
)  # fmt: skip
def test_mistakes_about_user_defined_classes_are_named(plain, outside, override, message):
    (line,) = lines_of(plain, override.replace("NAME", outside))
    assert message.replace("NAME", outside) in line


def test_a_wrong_required_number_does_not_hide_other_mistakes(tmp_path):
    tree = """\
        inputs: {text: {use: text, encoding: bytes}}
        model: {width: 32, depth: two, heads: 5, context: 16, attention: causl}
        tasks: {lm: {use: language_modeling, target: txt}}
        data: {dataset: tiny_shakespeare}
        training: {steps: many, tokens_per_step: 70}
        """
    lines = lines_of(write(tmp_path, tree))
    for message in ("model.depth: must be a whole number", "does not divide width", "no graph named 'causl'",
                    "training.steps: must be a whole number", "tasks.lm.target: no input is named 'txt'",
                    "training.tokens_per_step: must be a multiple of context"):  # fmt: skip
        assert sum(message in line for line in lines) == 1, message
    assert len(lines) == 6
    lines = lines_of(write(tmp_path, tree.replace("width: 32", "width: wide").replace("heads: 5", "heads: 4")))
    assert not any("heads" in line for line in lines) and any("model.width" in line for line in lines)


def test_a_model_that_does_not_fit_into_memory_is_a_memory_error(monkeypatch):
    """Torch raises a RuntimeError, which becomes a MemoryError; other RuntimeErrors are not changed."""
    for text, kind in (("DefaultCPUAllocator: can't allocate memory", MemoryError), ("another bug", RuntimeError)):

        def fails(*_, text=text):
            raise RuntimeError(text)

        monkeypatch.setattr(model, "_build_model", fails)
        with pytest.raises(kind):
            model.build_model(load_config(CONFIGS / "quickstart.yaml"), {}, {})


def test_a_wrong_value_is_removed_at_the_deepest_mapping():
    """A path may continue below a value that is no mapping, such as a number instead of options."""
    tree = {"training": {"clip": 1.5, "seed": 0}}
    assert _without(tree, [("training", "clip", "norm"), ("training", "clip", 0)]) == {"training": {"seed": 0}}
