"""Golden losses: a refactor must leave them identical. Rewrite them with

python tests/test_golden.py
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from chopmix.training.commands import claim
from chopmix.training.config import load_config
from chopmix.training.distribution import Processes
from chopmix.training.loop import Trainer
from chopmix.training.progress import Progress

FILE = Path(__file__).parent / "golden" / "losses.json"
FAMILIES = {
    "gpt2": {},
    "modern": {
        "inputs": {"text": {"use": "text", "encoding": "characters", "position": None}},
        "model": {
            "position": "rotary",
            "initialization": "zero_projections",
            "block": {"norm": "rms_norm", "query_key_norm": "rms_norm", "feed_forward": "squared_relu", "bias": False},
        },
        "training": {"learning_rate": 0.02, "optimizer": {"use": "muon", "others": 0.5}},
    },
    "post_norm_swiglu_grouped": {
        "model": {
            "block": {"residual": "post_norm", "feed_forward": "swiglu", "key_value_heads": 2},
            "attention": ["causal & same_sample & window(5)", "causal & same_sample"],
        }
    },
    "t5_bias_separate": {"model": {"position": "relative_bias"}, "data": {"documents": "separate"}},
}


def losses(config_file) -> list[float]:
    config = load_config(config_file, ["training.steps=6", "evaluation.every=6", "logging.every=1"])
    claim(config, config.out)
    trainer = Trainer(config, Processes.start(), Progress(6))
    trainer.fit()
    found = [json.loads(line) for line in (config.out / "metrics.jsonl").read_text().splitlines()]
    return [value for line in found for name, value in line.items() if name in ("train/loss", "val/loss")]


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_those_of_before(tiny, family, request, monkeypatch):
    monkeypatch.setattr("chopmix.training.optimizers.fast_half", lambda device: False)  # the same on every CPU
    found = losses(tiny(family, **FAMILIES[family]))
    if request.config.getoption("--rewrite-golden"):
        kept = json.loads(FILE.read_text()) if FILE.exists() else {}
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(json.dumps(kept | {family: found}, indent=1) + "\n")
    assert found == pytest.approx(json.loads(FILE.read_text())[family], rel=1e-4)


if __name__ == "__main__":
    sys.exit(subprocess.call([sys.executable, "-m", "pytest", __file__, "--rewrite-golden"]))
