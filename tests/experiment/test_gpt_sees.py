"""A trained GPT gets images as input (configs/mix/gpt2_sees.yaml): at step 0 its texts are unchanged, later images
change them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from checkout import ROOT
from chopmix.commands.cli import main
from chopmix.data.base import data_root
from chopmix.data.sample_dataset import SampleDataset
from chopmix.data.samples import Listed
from chopmix.experiment.run import load_run
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

CONFIG = ROOT / "configs" / "mix" / "gpt2_sees.yaml"
SMALL = {"width": 16, "depth": 2, "heads": 2, "context": 64}
RECIPE = {"steps": 2, "samples_per_step": 4, "learning_rate": 0.02, "optimizer": "muon", "clip": None}


def write(path: Path, **sections) -> Path:
    path.write_text(yaml.safe_dump({"logging": {"tensorboard": False}, **sections}))
    return path


@pytest.fixture
def seeing(tmp_path) -> tuple[Path, Path]:
    """The folder of a tiny GPT, a tiny ViT and the GPT with images at step 0, and the configuration of the latter."""
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
def costs(folder: Path, inputs=None, checkpoint: str = "last", trust=()) -> torch.Tensor:
    """The losses of the first answers of val in nats, computed one at a time."""
    run = load_run(folder, checkpoint=checkpoint, device="cpu", trust=trust)
    samples = run.samples("val")
    return torch.cat([run.losses(samples.select([number]), inputs=inputs)["lm"] for number in range(20)])


@pytest.mark.system
def test_images_change_the_losses_of_the_gpt_only_after_step_0(seeing):
    folder, file = seeing
    before, at_step_0 = costs(folder / "gpt", checkpoint="best"), costs(folder / "step_0")
    assert torch.equal(before, at_step_0), "bit for bit, with the picture before the text"
    train(load_config(file, ["training.steps=4"]))
    trained = costs(folder / "sees")
    assert not torch.equal(trained, costs(folder / "sees", inputs=())), "the picture changes the losses"


class Captions(SampleDataset):
    """Random pictures, and captions in GPT-2's ids."""

    splits = ("train", "val")
    columns = ("image", "caption")

    def open(self, split):
        random = np.random.default_rng(len(split))
        rows = [
            {"image": random.integers(0, 256, (32, 32, 3), np.uint8), "caption": f"<{n % 7}><{n % 5}><{n % 3}>"}
            for n in range(24)
        ]
        return Listed([f"{split} {n}" for n in range(24)], rows)


@pytest.mark.system
def test_an_imported_gpt2_reads_images_through_an_imported_vit(tmp_path):
    """The steps are those in the header of the configuration, with tiny sizes. At step 0, the loss equals that of
    transformers."""
    transformers, timm = pytest.importorskip("transformers"), pytest.importorskip("timm")
    torch.manual_seed(0)
    shape = {"n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2}
    gpt2 = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=61, **shape, bos_token_id=60, eos_token_id=60)
    ).eval()
    gpt2.save_pretrained(tmp_path / "theirs")
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=3, **arguments)
    (tmp_path / "timm").mkdir()
    save_file(vit.state_dict(), tmp_path / "timm" / "model.safetensors")
    about = {"architecture": "vit_tiny_patch16_224", "num_classes": 3, "model_args": arguments, "pretrained_cfg": {}}
    (tmp_path / "timm" / "config.json").write_text(json.dumps(about))
    for name, folder in (("theirs", "gpt2"), ("timm", "vit")):
        assert main(["import", str(tmp_path / name), str(tmp_path / folder)]) == 0
    text = "{use: text, encoding: numbers, vocabulary: 61, position: {use: learned, length: 64}}"
    changes = [
        f"from={tmp_path / 'gpt2'}", "model.width=16", "model.depth=2", "model.heads=2", "model.position=null",
        "model.block={}", "model.context=64", f"inputs.text={text}",
        'data.dataset={use: "test_gpt_sees:Captions"}', f"inputs.image.run={tmp_path / 'vit'}",
        "training.samples_per_step=8", "evaluation.every=1000", "logging.tensorboard=false",
        "evaluation.attribution=false",
    ]  # fmt: skip
    for name, more in (
        ("step_0", ["training.steps=1", "training.learning_rate=1e-30"]),
        ("sees", ["training.steps=4", "training.learning_rate=0.02"]),
    ):
        train(load_config(CONFIG, [*changes, *more, f"out={tmp_path / name}"]))
    trust = ["test_gpt_sees"]
    ids = torch.tensor([[60, 4, 4, 1]])
    with torch.inference_mode():
        expected = float(cross_entropy(gpt2(ids).logits[0], torch.tensor([4, 4, 1, 60]), reduction="sum"))
    number = next(n for n in range(20) if (n % 7, n % 5, n % 3) == (4, 4, 1))
    at_step_0 = costs(tmp_path / "step_0", trust=trust)
    assert float(at_step_0[number]) == pytest.approx(expected, rel=1e-4)
    assert torch.equal(at_step_0, costs(tmp_path / "step_0", inputs=(), trust=trust)), "the picture changes nothing yet"
    trained = costs(tmp_path / "sees", trust=trust)
    assert not torch.equal(trained, costs(tmp_path / "sees", inputs=(), trust=trust))


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
