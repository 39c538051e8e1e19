"""Import and export of the decision transformer of transformers: equal predictions, equal weights, refusals."""

import json

import numpy as np
import pytest
import torch
from batching import make_batch
from chopmix.experiment.interchange.export import export_directory
from chopmix.experiment.interchange.import_run import import_directory
from chopmix.experiment.run import load_run
from chopmix.files.errors import RunError
from transformers import DecisionTransformerConfig, DecisionTransformerModel

SMALL = {"state_dim": 5, "act_dim": 3, "hidden_size": 32, "max_ep_len": 64, "n_layer": 2, "n_head": 2,
         "n_positions": 96}  # fmt: skip
CASES = {
    "plain": {},
    "as a robot's": {"state_dim": 17, "act_dim": 6, "n_head": 1, "n_layer": 3, "n_inner": 48},
    "unbounded": {"action_tanh": False, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-3},
}


def directory(folder, options: dict) -> DecisionTransformerModel:
    """A randomly initialised decision transformer as transformers saves it."""
    torch.manual_seed(0)
    model = DecisionTransformerModel(DecisionTransformerConfig(**SMALL | options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return model


def play(config, steps: int, first: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    sizes = {"return": 1, "observation": config.state_dim, "action": config.act_dim}
    columns = {name: random.normal(size=(steps, size)).astype(np.float32) for name, size in sizes.items()}
    return columns | {"seconds": np.arange(first, first + steps)}


@pytest.mark.parametrize("case", CASES)
def test_predictions_are_those_of_transformers(tmp_path, case):
    """For windows of different lengths, packed into the same rows, some of which start in the middle of an episode."""
    model = directory(tmp_path / "published", CASES[case])
    assert "decision transformer" in import_directory(tmp_path / "published", tmp_path / "run")
    run = load_run(tmp_path / "run")
    plays = [play(model.config, steps, first, n) for n, (steps, first) in enumerate(((9, 0), (14, 40), (1, 7)))]
    samples = [
        {name: {"values": window[name], "seconds": window["seconds"].astype(np.float32)} for name in run.choppers}
        for window in plays
    ]
    split = run.as_split(samples)
    with torch.inference_mode():
        batch = run.model.plan(make_batch(split, split.all(), run.tasks))
        hidden = run.model.read(batch).main.flatten(0, 1)
        slots = {name: batch.main.chunks[name].slots for name in run.choppers}
        outputs = {task: run.model.heads[task](hidden[slots[run.tasks[task].at]]) for task in run.tasks}
        for number, window in enumerate(plays):
            state, action, to_go = (torch.from_numpy(window[n])[None] for n in ("observation", "action", "return"))
            mask = torch.ones(state.shape[:2], dtype=torch.long)
            steps = torch.from_numpy(window["seconds"])[None]
            expected = model(states=state, actions=action, rewards=to_go, returns_to_go=to_go, timesteps=steps,
                             attention_mask=mask)  # fmt: skip
            start = sum(len(other["seconds"]) for other in plays[:number])
            rows = slice(start, start + len(window["seconds"]))
            for task, values in (("act", expected.action_preds), ("state", expected.state_preds),
                                 ("to_go", expected.return_preds)):  # fmt: skip
                assert (outputs[task][rows] - values[0]).abs().max() < 1e-5, task


def test_an_exported_model_has_the_imported_weights(tmp_path):
    model = directory(tmp_path / "published", {})
    import_directory(tmp_path / "published", tmp_path / "run")
    export_directory(load_run(tmp_path / "run"), tmp_path / "back")
    exported = DecisionTransformerModel.from_pretrained(tmp_path / "back").state_dict()
    assert all(torch.equal(exported[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation_function": "tanh"}, "activation_function is 'tanh'; only 'gelu_new'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ({"state_dim": 6}, "has shape"),
        ({"act_dim": 2**24 - 1}, "act_dim"),  # a mean and a scale of each channel would take gigabytes
        ({"n_layer": 3}, "missing"),
    ],
)
def test_unsupported_options_are_refused(tmp_path, options, message):
    directory(tmp_path / "published", {})
    described = json.loads((tmp_path / "published" / "config.json").read_text())
    (tmp_path / "published" / "config.json").write_text(json.dumps(described | options))
    with pytest.raises((RunError, ValueError), match=message):
        import_directory(tmp_path / "published", tmp_path / "run")
