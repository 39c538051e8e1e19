"""A trained GPT that is given eyes (configs/mix/gpt2_sees.yaml): unchanged at step 0, changed by what it sees later."""

from pathlib import Path

import pytest
import torch
import yaml
from checkout import ROOT
from chopmix.data.root import data_root
from chopmix.experiment.data.splits import open_split
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.inference.evaluation import summed

CONFIG = ROOT / "configs" / "mix" / "gpt2_sees.yaml"
SMALL = {"width": 16, "depth": 2, "heads": 2, "context": 64}
RECIPE = {"steps": 2, "samples_per_step": 4, "learning_rate": 0.02, "optimizer": "muon", "clip": None}


def write(path: Path, **sections) -> Path:
    path.write_text(yaml.safe_dump({"logging": {"tensorboard": False}, **sections}))
    return path


@pytest.fixture
def seeing(tmp_path) -> tuple[Path, Path]:
    """The folders of a GPT and of the same GPT with eyes, of tiny size: the shapes of the configuration's parts."""
    tree = yaml.safe_load(CONFIG.read_text())
    text = {"use": "text", "encoding": "bytes", "position": None}
    model = {**SMALL, **{key: tree["model"][key] for key in ("attention", "position", "block", "initialization")}}
    data = {"dataset": {"use": "arithmetic", "samples": 40}, "columns": {"text": "answer"}}
    image = {"use": "image", "patch_size": 2, "channels": 1, "size": 8}
    gpt = write(tmp_path / "gpt.yaml", inputs={"text": text}, model=model, tasks=tree["tasks"], data=data,
                training=RECIPE | {"steps": 6}, out=str(tmp_path / "gpt"))  # fmt: skip
    vit = write(tmp_path / "vit.yaml", inputs={"image": image}, model=SMALL | {"attention": "same_sample"},
                tasks={"which": {"use": "classification", "target": "operator"}}, data={"dataset": data["dataset"]},
                training=RECIPE, out=str(tmp_path / "vit"))  # fmt: skip
    sees = write(
        tmp_path / "sees.yaml", tasks=tree["tasks"], data=data, training=RECIPE, out=str(tmp_path / "sees"),
        inputs={"image": {"use": "encoded", "run": str(tmp_path / "vit"), "input": "image"}, "text": text},
        model={**model, "encoder": tree["model"]["encoder"]}, **{"from": str(tmp_path / "gpt")},
    )  # fmt: skip
    for file in (gpt, vit):
        train(load_config(file))
    train(load_config(sees, ["training.steps=1", "training.learning_rate=1e-30", f"out={tmp_path / 'step_0'}"]))
    return tmp_path, sees


@torch.inference_mode()
def costs(folder: Path, inputs=None, checkpoint: str = "last") -> torch.Tensor:
    """What each of the first answers of val costs, in nats, one at a time."""
    run = load_run(folder, checkpoint=checkpoint, device="cpu")
    split = open_split(run.config, run.config.data.dataset(), "val", run.choppers, run.tasks)
    places = sorted((place for place in split.all() if place.number < 20), key=lambda place: place.number)
    found = [summed(run.model, run.tasks, split, [place], 1, inputs)[0]["lm"]["loss"] for place in places]
    return torch.stack(found)


def test_at_step_0_the_gpt_writes_what_it_wrote_and_then_it_sees(seeing):
    folder, file = seeing
    blind, untaught = costs(folder / "gpt", checkpoint="best"), costs(folder / "step_0")
    assert torch.equal(blind, untaught), "bit for bit, with the picture before it"
    train(load_config(file, ["training.steps=4"]))
    taught = costs(folder / "sees")
    assert not torch.equal(taught, costs(folder / "sees", inputs=())), "the picture changes what is written"


@pytest.mark.skipif(not (data_root() / "stamps").exists(), reason="needs CHOPMIX_DATA")
def test_the_configuration_names_parts_that_other_configurations_train():
    tree = yaml.safe_load(CONFIG.read_text())
    books, cifar10 = (
        yaml.safe_load((ROOT / "configs" / name).read_text()) for name in ("lm/books.yaml", "vision/cifar10.yaml")
    )
    assert (tree["from"], tree["inputs"]["image"]["run"]) == ("runs/lm/books", "runs/vision/cifar10")
    assert tree["inputs"]["text"] == books["inputs"]["text"] and tree["tasks"] == books["tasks"]
    assert all(tree["model"][key] == books["model"][key] for key in books["model"] if key != "initialization")
    assert tree["model"]["encoder"]["context"] == cifar10["model"]["context"]
