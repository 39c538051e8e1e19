"""Keys and flags of other libraries are refused with a hint of what to write in chopmix."""

import pytest
from chopmix.commands.cli import main
from chopmix.experiment.settings.config import ConfigError, load_config
from chopmix.experiment.settings.hints import GROUPS, HINTS, hint_for
from chopmix.experiment.settings.schema import keys_of
from chopmix.experiment.settings.sections import Checkpoints, Data, Evaluation, Logging, Training, sections


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.num_epochs=3", r"training\.num_epochs: Training has no such key; write training\.epochs"),
        ("training.batch_size=8", r"write training\.samples_per_step, or for a text corpus training\.tokens_per_step"),
        ("training.lr=0.1", r"write training\.learning_rate"),
        ("training.early_stopping=true", r"checkpoints\.best"),
        ("tasks.lm.class_weights=balanced", r"write class_weights: balanced in the task"),
        ("training.wandb=x", r"RUN/metrics\.jsonl"),
        ("tasks.lm=detection", r"nothing is named 'detection'; .*no task predicts boxes or masks"),
        ("data.folds=5", r"write data\.split: \{val: 0\.1"),
        ("batch_size=3", r"batch_size: there is no such section; write training\.samples_per_step"),
        ("model.n_embd=64", r"write model\.width"),
    ],
)
def test_a_key_of_another_library_is_refused_with_a_hint(tiny, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(tiny(), [override])


def test_a_flag_of_another_library_is_refused_with_a_hint(tiny, capsys):
    with pytest.raises(SystemExit):
        main(["train", str(tiny()), "--epochs", "3"])
    assert "did you mean training.epochs=3?" in capsys.readouterr().err


def test_hints_are_unique_and_no_hint_hides_a_key():
    words = " ".join(GROUPS).split()
    assert len(words) == len(set(words)) == len(HINTS) and all(word == word.lower() for word in words)
    keys = {name for section in (Training, Data, Evaluation, Checkpoints, Logging) for name in keys_of(section)}
    assert (
        not {*keys, *sections()} & {*words}
        and hint_for("Batch-Size") == hint_for("batch_size")
        and not hint_for("steps")
    )


def test_a_missing_sensor_column_has_a_hint_about_channels(tiny, tmp_path, capsys):
    rows = "".join(f"{n},{n / 2},{'ab'[n % 2]}\n" for n in range(20))
    (tmp_path / "log.csv").write_text("x,y,state\n" + rows)
    changes = {
        "inputs": {"vibration": {"use": "sensor", "channels": 2}, "text": None},
        "tasks": {"state": {"use": "classification", "target": "state"}, "lm": None},
        "data": {"dataset": {"use": "manifest", "train": str(tmp_path / "log.csv"), "columns": ["x", "y", "state"]}},
        "training": {"tokens_per_step": None, "samples_per_step": 4},
        "model": {"attention": "same_sample"},
    }
    file = tiny(**{name: {k: v for k, v in value.items() if v} for name, value in changes.items()})
    overrides = ["inputs.text=null", "tasks.lm=null", "training.tokens_per_step=null"]
    assert main(["train", str(file), *overrides]) == 2
    error = capsys.readouterr().err
    assert "has no column 'vibration'; possible: x, y, state" in error
    assert "several columns are channels of one stream: data.columns: {vibration: [x, y]}" in error
    assert main(["train", str(file), *overrides, "data.columns.vibration=[x, y]"]) == 0
