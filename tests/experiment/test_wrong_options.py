"""Options of `Run.generate` and `Run.stream` with a wrong type raise an error of one sentence."""

import re

import chopmix
import pytest
from chopmix.experiment.run import load_run
from chopmix.files.errors import RunError
from chopmix.inference.generate import TYPES, Generating

WRONG = (5, 2.5, "y", b"x", [5], {"a": 1}, True, object())


@pytest.fixture(scope="module")
def run(trained_once):
    return load_run(trained_once / "runs" / "tiny")


@pytest.mark.parametrize("prompt", [5, 2.5, b"x", [5], {"a": 1}, [["a"]], True])
def test_prompts_are_texts(prompt, run):
    """In an earlier version `generate(5)` ended with "'int' object is not iterable"."""
    for call in (run.generate, lambda prompt: next(run.stream(prompt))):
        with pytest.raises(TypeError, match=r"^a prompt must be a text or a list of texts, not "):
            call(prompt)


@pytest.mark.parametrize("samples", [4, "a", b"a", [4], ["a"]])
def test_samples_are_mappings(samples, run):
    with pytest.raises(RunError, match=r"^(samples must be a mapping or a list of mappings|a sample must map inputs)"):
        run.generate(inputs=samples)
    with pytest.raises(RunError):
        run.predict(samples)


@pytest.mark.parametrize("value", WRONG, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", TYPES)
def test_options_have_types(name, value):
    kind, noun = TYPES[name]
    if isinstance(value, kind) and not isinstance(value, bool):
        return
    with pytest.raises(TypeError, match=f"^{name} must be {re.escape(noun)}, not "):
        Generating.of({name: value})


@pytest.mark.parametrize("stop", [5, [5], {"a"}, ["a", None]])
def test_stop_texts_are_texts(stop, run):
    with pytest.raises(TypeError, match="^stop must be a list of texts, not "):
        run.generate("x", stop=stop)
    with pytest.raises(ValueError, match=r"write stop=\['a'\]"):
        run.generate("x", stop="a")


@pytest.mark.parametrize("run", [None, 3, ["runs/a"], object()], ids=["None", "a number", "a list", "an object"])
@pytest.mark.parametrize("call", [chopmix.evaluate, lambda run: chopmix.predict(run, []), chopmix.generate])
def test_what_is_neither_a_run_nor_its_folder_is_named(call, run):
    with pytest.raises(TypeError, match=f"expected str, bytes or os.PathLike object, not {type(run).__name__}"):
        call(run)
