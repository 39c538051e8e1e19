"""The benchmark of models at equal steps: other models are trained and evaluated in the same way as ours."""

import sys
from contextlib import contextmanager

import pytest
from checkout import BENCHMARKS, CONFIGS
from chopmix.experiment.settings.config import load_config
from jaxtyping import config as checks


@pytest.fixture(scope="module")
def equal_steps():
    """The script, as a module."""
    sys.path.insert(0, str(BENCHMARKS))
    import equal_steps

    yield equal_steps
    sys.path.remove(str(BENCHMARKS))


@contextmanager
def unchecked():
    """Disables the checks of annotations, which would refuse a peer in the place of a `Model`."""
    checks.update("jaxtyping_disable", True)
    yield
    checks.update("jaxtyping_disable", False)


@pytest.mark.parametrize("name, size", [("bert", 256), ("t5", 282)])
def test_every_peer_is_trained_and_evaluated(equal_steps, tmp_path, name, size):
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").write_text("chop it up and throw it into the mix " * 80)
    config = load_config(CONFIGS / name / "books.yaml", [
        f"data={{dataset: {{use: text, train: {tmp_path}/train.txt, val: {tmp_path}/val.txt}}}}", f"out={tmp_path}/run",
        "inputs.text.encoding=bytes", "inputs.text.vocabulary=null", "model.width=32", "model.depth=1",
        "training.steps=2", f"training.tokens_per_step={size}", "training.precision=float32",
    ])  # fmt: skip
    kind = next(iter(config.tasks.values())).target
    with unchecked():
        rows = {who: equal_steps.trained(config, make and make.like) for who, make in [
            ("ours", None), ("first", equal_steps.PEERS["first", kind]), ("modern", equal_steps.PEERS["modern", kind]),
        ]}  # fmt: skip
    for row in rows.values():
        assert 4 < row["val/loss"] < 8  # 5.5 for a byte of 257
    assert len({row["val/loss"] for row in rows.values()}) == len({row["parameters"] for row in rows.values()}) == 3
