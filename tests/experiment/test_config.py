"""Configurations are read as the signatures of the parts define them; mistakes are in test_config_errors.py."""

from __future__ import annotations

import importlib
import json
import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import pytest
import torch
import yaml
from checkout import CONFIGS, ROOT, every_yaml
from chopmix.experiment.build import build_core, build_optimizer
from chopmix.experiment.settings.config import config_from_tree, json_schema, load_config
from chopmix.experiment.settings.document import ConfigError, dumped
from chopmix.experiment.settings.registry import registry_of, snake_case
from chopmix.experiment.settings.schema import Record, keys_of
from chopmix.experiment.settings.schema import plain as plain_tree
from chopmix.experiment.settings.sections import Checkpoints, Evaluation, Logging
from chopmix.models.batch import Batch, Chunks, SetPlan, Targets
from chopmix.models.layers.feed_forward import FeedForward
from chopmix.models.layers.norms import RmsNorm
from chopmix.models.model import Cores, Model
from chopmix.models.tokens import plain_tokens
from chopmix.models.transformer import Block, Dropout
from chopmix.tokenizers.base import Chopper, Part, Role
from chopmix.tokenizers.text import TextPreprocessor, TextTokenizer
from chopmix.training.schedules import Constant, Cosine, Linear, Schedule
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

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


# ---- valid values -------------------------------------------------------------------------------------------------


def test_a_plain_file(plain):
    config = load_config(plain)
    assert (config.path, config.out, config.from_run) == (plain, Path("runs/x"), None)
    assert config.training.learning_rate == 1e-3
    assert config.inputs["text"].target is TextTokenizer
    assert config.data.dataset.use == "tiny_shakespeare"
    assert (config.evaluation, config.checkpoints, config.logging) == (Evaluation(), Checkpoints(), Logging())


def test_defaults_are_those_of_the_signatures(plain):
    bare, empty = load_config(plain), load_config(plain, ["model.block={}", "model.dropout={}", "evaluation={}"])
    assert bare.tree == empty.tree and bare.model == empty.model
    block = bare.model.options["block"]
    assert block.target is Block
    for name, (_, default) in keys_of(Block).items():
        value = block.options[name]
        assert (value.target if isinstance(value, Part) else value) == default, name
    assert bare.model.options["dropout"] == Dropout()
    assert bare.tree["model"]["dropout"] == asdict(Dropout())


@pytest.mark.parametrize(
    "written", ["rms_norm", "RmsNorm", "rmsnorm", "{use: rms_norm}", "chopmix.models.layers.norms:RmsNorm"]
)
def test_a_part_has_several_names(plain, written):
    norm = load_config(plain, [f"model.block.norm={written}"]).model.options["block"].options["norm"]
    assert norm == Part(RmsNorm, {"gain": True, "epsilon": 1e-6})
    assert norm(8).weight.shape == (8,)


def test_names_of_classes_in_snake_case():
    names = ["RmsNorm", "Gpt2", "AdamW", "MLPMixer", "WarmupStableDecay", "Alibi"]
    assert list(map(snake_case, names)) == ["rms_norm", "gpt2", "adamw", "mlp_mixer", "warmup_stable_decay", "alibi"]


def test_numbers_may_be_in_scientific_notation_or_quoted(plain):
    overrides = ["training.learning_rate=3e-4", "training.steps=2e3", "training.optimizer.betas=['0.8', 9e-1]"]
    training = load_config(plain, [*overrides, "model.dropout=1e-1", "training.clip=null"]).training
    assert (training.learning_rate, training.steps, training.clip) == (3e-4, 2000, None)
    assert isinstance(training.steps, int) and training.optimizer.options["betas"] == (0.8, 0.9)


def test_text_that_looks_like_a_number_stays_text(plain):
    config = load_config(plain, ["evaluation.prompt=1e-4"])
    assert config.evaluation.prompt == "1e-4"
    assert config_from_tree(yaml.safe_load(yaml.safe_dump(config.tree))).evaluation.prompt == "1e-4"


def test_a_removed_input_is_removed_everywhere(plain):
    """It is removed from `data.columns` and `training.input_dropout` too."""
    more = [
        "inputs.image={use: image, size: 32}",
        "data.columns={image: picture}",
        "training.input_dropout={image: 0.1}",
    ]
    tree = load_config(plain, [*more, "inputs.image=null"]).tree
    assert "image" not in tree["inputs"] and not tree["data"]["columns"]


@pytest.mark.parametrize("none", ["null", "none", "~"])
def test_a_position_may_be_none(plain, none):
    assert load_config(plain, [f"inputs.text.position={none}"]).inputs["text"].options["position"] is None


def test_overrides_add_missing_keys_and_sections(plain):
    overrides = ["model.block.norm=rms_norm", "model.block.norm.gain=false", "inputs.speech={use: audio}",
                 "inputs.speech.mels=20", "data.dataset.use=books", "logging.every=5", "out=elsewhere"]  # fmt: skip
    config = load_config(plain, [each for each in overrides if "books" not in each])
    assert config.model.options["block"].options["norm"] == Part(RmsNorm, {"gain": False, "epsilon": 1e-6})
    assert (config.inputs["speech"].options["mels"], config.logging.every) == (20, 5)
    assert config.out == Path("elsewhere")


def test_an_override_removes_an_input(plain):
    config = load_config(
        plain, ["inputs.speech={use: audio}", "inputs.image={use: image, size: 32}", "inputs.speech=null"]
    )
    assert list(config.inputs) == ["text", "image"] == list(config.tree["inputs"])
    with pytest.raises(ConfigError, match="inputs.txt: does not exist, so it cannot be removed; did you mean 'text'"):
        load_config(plain, ["inputs.txt=null"])
    with pytest.raises(ConfigError, match="tasks: must name at least one"):
        load_config(plain, ["tasks.lm=null"])


@pytest.mark.parametrize(
    ("path", "out"),
    [("configs/lm/a.yaml", "runs/lm/a"), ("/x/configs/y/configs/b.yaml", "runs/b"), ("elsewhere/c.yaml", "runs/c")],
)
def test_the_folder_of_a_run_follows_from_the_path_of_its_configuration(path, out):
    tree = yaml.safe_load(PLAIN)
    assert config_from_tree(tree, path).out == Path(out)
    stored = config_from_tree(tree, path).tree
    assert config_from_tree(stored, "runs/other/config.yaml").out == Path(out)


def test_the_parts_of_a_configuration_are_built_and_trained(plain):
    config = load_config(plain, ["model.position=rotary", "model.block.norm=rms_norm", "model.dropout=0.1"])
    chopper = config.inputs["text"].of(TextPreprocessor)().fit(list, Role())
    tokenizers = {"text": config.inputs["text"](chopper, 32, 16)}
    core = build_core(config, ("order",))
    tasks = {name: part() for name, part in config.tasks.items()}
    heads = {name: task.head(tokenizers, 32) for name, task in tasks.items()}
    model = config.model.of(Model)(tokenizers, Cores(core), heads)
    optimizer = build_optimizer(config.training, model)
    schedule = config.training.schedule(config.training.steps)
    index = torch.arange(16).expand(2, 16)
    chunks = Chunks(values=torch.randint(256, (2, 16)), index=index)
    planned = SetPlan(tokens=plain_tokens(2, 16), chunks={"text": chunks})
    batch = model.plan(Batch(main=planned, targets={"lm": Targets(values=torch.zeros(32))}))
    output = model(batch)["lm"]
    output.square().mean().backward()
    optimizer.step(schedule(0))
    assert output.shape == (32, 257)


def test_every_config_of_the_folder_loads():
    files = every_yaml()
    assert files
    outs = {load_config(file).out for file in files}
    assert len(outs) == len(files) == sum(name.suffix == ".yaml" for name in CONFIGS.rglob("*"))


SIZES = {"model.width": [16, 64, "6.4e1"], "model.depth": [1, 3], "model.heads": [1, 2, 4], "model.context": [8, 32]}
CHOICES = {
    "model.attention": ["causal & window(4)", ["causal", "same_sample"]],
    "model.position": [
        None,
        "rotary",
        {"use": "rotary", "base": "1e4"},
        "alibi",
        {"use": "relative_bias", "longest": 64},
    ],
    "model.block": [{}, "block", {"bias": False, "norm": "rms_norm"}, {"feed_forward": {"use": "swiglu", "ratio": 3}}],
    "model.block.residual": ["post_norm", {"use": "pre_norm"}],
    "model.dropout": [0, "1e-1", {"depth": 0.2}],
    "model.initialization": ["zero_projections", {"std": 0.01}],
    "inputs.text.position": [None, "none", "sinusoidal", {"length": 64}],
    "inputs.pixels": [{"use": "image", "patch_size": 4}],
    "tasks.lm.head": ["tied", {"use": "unembedding", "bias": True}],
    "training.optimizer": ["muon", {"use": "AdamW", "betas": [0.9, 1e-1]}],
    "training.schedule": ["constant", {"warmup": 5}, {"use": "linear", "final": 1}],
    "training.compile": ["auto", True, False],
    "training.ema": [None, 0.99],
    "evaluation.prompt": ["", "yes", "1e-3", "null", "2024-01-01", "a: b"],
    "from": [None, "runs/other"],
}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in (SIZES | CHOICES).items()}))
def test_any_valid_tree_survives_dump_and_load(plain, chosen):
    overrides = {
        key: yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n") for key, value in chosen.items()
    }
    config = load_config(plain, [f"{key}={value}" for key, value in overrides.items()])
    stored = plain.with_name("stored.yaml")
    stored.write_text(yaml.safe_dump(config.tree, sort_keys=False))
    for again in (load_config(stored), config_from_tree(config.tree)):
        assert again.tree == config.tree and list(again.tree) == list(config.tree)
        assert (again.model, again.inputs, again.training) == (config.model, config.inputs, config.training)


@dataclass(frozen=True, kw_only=True)
class Several:
    """Parts and records in collections, and field names that are attributes of pydantic's models."""

    many: tuple[Callable[..., Schedule], ...] = ()
    named: dict[str, Callable[..., Schedule]] = field(default_factory=dict)
    maybe: list[Callable[..., Schedule]] | None = None
    drops: list[Dropout] = field(default_factory=list)
    json: int = 3
    model_config: str = "x"


def test_collections_of_parts_are_read():
    several = Record("Several", (Several,), Several)
    assert several.read({}) == Several()
    values = {"many": ["linear", {"use": "cosine", "final": "1e-1"}], "named": {"a": "constant"}, "maybe": ["linear"]}
    record = several.read(values | {"drops": [0.5, {"depth": 0.1}], "json": 4})
    assert [part.target for part in record.many] == [Linear, Cosine] and record.named["a"].target is Constant
    assert record.drops == [Dropout.from_number(0.5), Dropout(depth=0.1)]
    assert several.read(plain_tree(record)) == record
    with pytest.raises(ValidationError) as caught:
        several.read({"many": ["linear", "linaer"], "named": {"a": {"warmpu": 1}}, "drops": {}, "maybe": 3})
    assert [(each["loc"], each["msg"].partition(",")[0]) for each in caught.value.errors()] == [
        (("many", 1), "nothing is named 'linaer'; possible: constant"),
        (("named", "a"), "needs 'use'"),
        (("maybe",), "must be a list"),
        (("drops",), "must be a list"),
    ]


# ---- the schema for editors ----------------------------------------------------------------------------------------


def objects(schema):
    """All schemas of mappings inside a schema."""
    for value in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(value, dict | list):
            yield from objects(value)
    if isinstance(schema, dict) and "properties" in schema and schema.get("type") == "object":
        yield schema


def test_json_schema_has_every_section_and_part():
    schema = json.loads(json.dumps(json_schema()))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    sections = schema["properties"]
    assert schema["required"] == ["inputs", "model", "tasks", "data", "training"]
    assert set(sections) - set(schema["required"]) == {"evaluation", "checkpoints", "logging", "from", "out"}
    norm = sections["model"]["properties"]["block"]["anyOf"][2]["properties"]["norm"]
    assert norm["default"] == "layer_norm" and norm["anyOf"][0] == {"enum": ["layer_norm", "rms_norm"]}
    names = {each["properties"]["use"].get("const") for each in objects(schema) if "use" in each["properties"]}
    assert {"text", "image", "language_modeling", "tiny_shakespeare", "rotary", "muon", "cosine", "swiglu"} <= names
    closed = [each for each in objects(schema) if "pattern" not in each["properties"].get("use", {})]
    assert closed and all(each["additionalProperties"] is False for each in closed)
    task = next(each for each in objects(schema) if each["properties"].get("use") == {"const": "language_modeling"})
    assert task["required"] == ["use", "target"]
    assert "null: no average" not in str(schema) and "moving average" in str(sections["training"])


def test_an_abstract_class_is_no_choice():
    names = registry_of((FeedForward,)).names()
    assert names == ["gelu", "relu", "squared_relu", "swiglu", "geglu"]
    with pytest.raises(LookupError, match="nothing is named 'two_matrices'"):
        registry_of((FeedForward,)).find("two_matrices")


def test_json_schema_accepts_every_config():
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    for file in every_yaml():
        validator.validate(load_config(file).tree)
    assert not validator.is_valid(load_config(file).tree | {"extra": 1})


TOKENIZERS = sorted(file.stem for file in (ROOT / "tokenizers").glob("*.py"))


def test_the_fields_of_a_chopper_are_the_keys_of_the_yaml():
    """For every tokenizer, the values that `fit` learns are stored in keys that the YAML omits, in positional fields,
    or in a chopper of another class."""
    choppers = {}
    for stem in TOKENIZERS:
        module = importlib.import_module(f"chopmix.tokenizers.{stem}")
        for value in vars(module).values():
            if isinstance(value, type) and hasattr(value, "Chopper") and value.__module__ == module.__name__:
                choppers[stem] = value.Chopper
    assert set(choppers) == {
        "audio", "audio_patches", "audio_stem", "category", "codes", "encoded", "image", "image_ids", "noted_text",
        "score", "sensor", "text", "video",
    }  # fmt: skip
    for chopper in choppers.values():
        assert list(keys_of(chopper)) == [field.name for field in fields(chopper) if field.kw_only]
    assert [name for name, chopper in choppers.items() if not issubclass(chopper, Chopper)] == [
        "codes", "encoded", "image_ids", "noted_text", "score", "text",
    ]  # fmt: skip
    learned = ("statistics", "mean", "scale")
    open_keys = {name: [key for key in learned if key in keys_of(chopper)] for name, chopper in choppers.items()}
    assert {name: keys for name, keys in open_keys.items() if keys} == {
        "audio": ["statistics"], "audio_patches": ["statistics"], "sensor": ["mean", "scale"],
    }  # fmt: skip


@given(st.lists(st.text(max_size=6), max_size=4))
def test_texts_of_a_configuration_are_written_as_they_are(texts):
    """Characters such as `°` are written unescaped; characters that cannot be printed are escaped."""
    written = dumped({"unit": "°C", "texts": texts})
    assert yaml.safe_load(written) == {"unit": "°C", "texts": texts}
    assert written.replace("\n", "").isprintable()
    assert not "".join(texts).isprintable() or "unit: °C\n" in written
