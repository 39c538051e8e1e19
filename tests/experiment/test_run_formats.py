"""Runs of another format: what reading them reports."""

from __future__ import annotations

import json

import pytest
from chopmix.commands.cli import main
from chopmix.experiment.run_folder import read_config
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.settings.document import ConfigError
from chopmix.training.checkpoints import CheckpointError, FormatError, newest_valid, read_state


def test_a_checkpoint_of_another_format_is_not_reported_as_damaged(tiny):
    file = tiny("mixed")
    assert main(["train", str(file)]) == 0
    run = load_config(file).out
    for version, message in (
        (None, "has format 1, which an unreleased chopmix .* reads; this version reads formats 2 to 3"),
        (9, "has format 9, which a newer chopmix reads; this version reads formats 2 to 3"),
    ):
        for state in run.glob("checkpoints/*/state.json"):
            content = {**json.loads(state.read_text()), "format": version}
            state.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
        with pytest.raises(FormatError, match=message):
            read_state(run, 12)
        with pytest.raises(FormatError, match=message):
            newest_valid(run, print)
    assert not list(run.glob("checkpoints/damaged-*")) and not issubclass(FormatError, CheckpointError)
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("format: 3", "format: 4"))
    with pytest.raises(
        ConfigError, match="has format 4, which a newer chopmix reads; this version reads formats 2 to 3"
    ):
        read_config(run)
