"""Imported Vision Transformers of many shapes and options give the logits of timm; a model that differs is refused."""

import json

import numpy as np
import pytest
import timm
import timm.data
import torch
from batching import make_batch
from chopmix.experiment.build import build_choppers, build_model
from chopmix.experiment.interchange.import_run import import_directory
from chopmix.experiment.run import load_run
from chopmix.experiment.run_folder import read_config
from chopmix.experiment.settings.config import config_from_tree
from chopmix.experiment.transfer import take_weights
from chopmix.files.errors import RunError
from PIL import Image
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 7}
CASES = {
    "vit_tiny_patch16_224": {},
    "vit_small_patch32_224": {"qk_norm": True},
    "vit_base_patch16_224": {"global_pool": "avg"},
    "vit_base_patch32_224": {"init_values": 0.1, "img_size": (24, 40)},
    "deit_tiny_patch16_224": {"mlp_ratio": 3, "num_heads": 4},
    "deit3_small_patch16_224": {"no_embed_class": False},
    "deit3_medium_patch16_224": {},
}


def directory(folder, name: str, options: dict, seed: int = 0):
    """A randomly initialised timm model, saved as its hub does."""
    torch.manual_seed(seed)
    arguments = SMALL | options
    model = timm.create_model(name, pretrained=False, **arguments).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        for parameter in (model.cls_token, model.pos_embed):  # their sum, which we store, is then exact
            if parameter is not None:
                parameter.copy_((parameter * 1024).round() / 1024)
    folder.mkdir()
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    pool = arguments.pop("global_pool", None)
    config = {"architecture": name, "num_classes": arguments.pop("num_classes"), "model_args": arguments,
              "pretrained_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "crop_pct": 1.0}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config | ({"global_pool": pool} if pool else {})))
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_logits_equal_timms(tmp_path, name, dtype):
    theirs = directory(tmp_path / "timm", name, CASES[name]).to(dtype)
    assert "imported" in import_directory(tmp_path / "timm", tmp_path / "run")
    run = load_run(tmp_path / "run")
    run.model.to(dtype)
    height, width = run.choppers["image"].shape
    images = torch.randint(256, (3, 3, height, width), dtype=torch.uint8)
    split = run.as_split([{"image": image} for image in images])
    batch = run.model.plan(make_batch(split, split.all(), run.tasks))
    with torch.inference_mode():
        ours = run.model(batch)["label"]
        mean, std = (torch.tensor(v).to(dtype)[:, None, None] for v in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.25]))
        expected = theirs((images.to(dtype) / 255 - mean) / std)
    error = (ours - expected).abs().max() / expected.abs().max()
    assert error < (1e-5 if dtype == torch.float32 else 1e-10)


def test_a_folder_that_timm_writes_is_read(tmp_path):
    """`save_for_hf` writes the arguments itself, with the number of classes among them."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", **SMALL).eval()
    timm.models.save_for_hf(model, tmp_path / "timm", model_args=SMALL, safe_serialization=True)
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    config["pretrained_cfg"]["crop_pct"] = 1.0  # the images have the size of the model
    (tmp_path / "timm" / "config.json").write_text(json.dumps(config))
    import_directory(tmp_path / "timm", tmp_path / "run")
    run = load_run(tmp_path / "run")
    images = torch.randint(256, (2, 3, *run.choppers["image"].shape), dtype=torch.uint8)
    split = run.as_split([{"image": image} for image in images])
    with torch.inference_mode():
        ours = run.model(run.model.plan(make_batch(split, split.all(), run.tasks)))["label"]
        expected = model((images.float() / 255 - 0.5) / 0.5)
    assert ours.shape[1] == SMALL["num_classes"] and (ours - expected).abs().max() < 1e-5 * expected.abs().max() + 1e-5


def test_an_imported_model_predicts(tmp_path):
    directory(tmp_path / "timm", "vit_tiny_patch16_224", {})
    import_directory(tmp_path / "timm", tmp_path / "run")
    image = torch.randint(256, (3, 50, 70), dtype=torch.uint8)
    assert load_run(tmp_path / "run").predict([{"image": image}])[0]["label"]["class"] in range(7)


PREPARED = {
    "of the architecture": None,
    "of the format": {"num_classes": 7},
    "middle": {"crop_pct": 0.9, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.25] * 3},
    "squash": {"crop_pct": 0.8, "crop_mode": "squash", "interpolation": "bicubic"},
    "whole": {"crop_pct": 1.0, "label_names": list("abcdefg")},
}


@pytest.mark.parametrize("size", [(50, 70), (90, 40), (32, 32), (20, 25)])
@pytest.mark.parametrize("which", PREPARED)
def test_pictures_are_prepared_as_timm_prepares_them(tmp_path, which, size):
    """Size, crop, interpolation, mean and std as `resolve_data_config` and `create_transform` read the same file."""
    model = directory(tmp_path / "timm", "vit_tiny_patch16_224", {})
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    del config["pretrained_cfg"]
    config |= {"pretrained_cfg": PREPARED[which]} if PREPARED[which] else {}
    (tmp_path / "timm" / "config.json").write_text(json.dumps(config))
    import_directory(tmp_path / "timm", tmp_path / "run")
    run = load_run(tmp_path / "run")
    theirs = timm.create_model("vit_tiny_patch16_224", pretrained=False, pretrained_cfg=PREPARED[which], img_size=32)
    settings = timm.data.resolve_data_config({"img_size": 32}, model=theirs)
    rough = np.random.default_rng(0).integers(0, 256, (size[0] // 5, size[1] // 5, 3), dtype=np.uint8)
    picture = Image.fromarray(rough).resize(size[::-1], Image.Resampling.BICUBIC)
    expected = timm.data.create_transform(**settings)(picture)
    (pixels,) = run.choppers["image"].chop(run.choppers["image"].decode(picture)).values
    mean, std = (torch.tensor(settings[name])[:, None, None] for name in ("mean", "std"))
    level = 1 / 255 / std  # Pillow and torch round their filters differently
    assert ((pixels / 255 - mean) / std - expected).abs().le(2.01 * level).all()
    answer = run.predict([{"image": picture}])[0]["label"]
    with torch.inference_mode():
        torch.testing.assert_close(
            torch.tensor(list(answer["probabilities"].values())),
            model(expected[None]).softmax(-1)[0],
            atol=0.03,
            rtol=0,
        )
    assert answer["class"] in (PREPARED[which] or {}).get("label_names", range(7))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", {}, "'resnet18' is not one of timm's vision transformers"),
        ("vit_tiny_patch16_224", {"reg_tokens": 2}, "prefix tokens cannot be imported"),
        ("vit_tiny_patch16_224", {"pre_norm": True}, "the model has the part norm_pre .LayerNorm."),
        ("vit_tiny_patch16_224", {"not_an_option": 1}, "model_args.not_an_option is 1; Extra inputs are not permitted"),
        ("vit_medium_patch16_gap_240", {}, "attention without biases of queries, keys and values"),
        ("no_such_model", {}, "'no_such_model' is not one of timm's vision transformers"),
    ],
)
def test_a_model_that_is_not_reproduced_is_refused(tmp_path, name, options, message):
    directory(tmp_path / "timm", "vit_tiny_patch16_224", {})
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    arguments = {} if name == "resnet18" else config["model_args"] | options
    (tmp_path / "timm" / "config.json").write_text(json.dumps(config | {"architecture": name, "model_args": arguments}))
    with pytest.raises((RunError, ValueError), match=message):
        import_directory(tmp_path / "timm", tmp_path / "run")


def test_left_over_weights_are_named(tmp_path):
    model = directory(tmp_path / "timm", "vit_tiny_patch16_224", {})
    weights = {key: value.contiguous() for key, value in model.state_dict().items()} | {"extra.weight": torch.zeros(1)}
    save_file(weights, tmp_path / "timm" / "model.safetensors")
    with pytest.raises(RunError, match=r"unexpected extra\.weight"):
        import_directory(tmp_path / "timm", tmp_path / "run")


def test_another_resolution_interpolates_the_positions(tmp_path):
    """With `from:` an imported model and larger images, the learned positions are interpolated as in timm; all other
    weights are unchanged."""
    theirs = directory(tmp_path / "timm", "vit_tiny_patch16_224", {})
    import_directory(tmp_path / "timm", tmp_path / "run")
    source = read_config(tmp_path / "run")
    tree = source.tree | {"out": str(tmp_path / "larger")}
    tree["inputs"]["image"]["size"] = 56
    tree["model"]["context"] = 50
    tree["from"] = str(tmp_path / "run")
    config = config_from_tree(tree, tmp_path / "larger.yaml")
    choppers = build_choppers(config, tmp_path / "assets")
    model = build_model(config, choppers, load_run(tmp_path / "run").tasks)
    assert "1 interpolated to another size: tokenizers.image.position.table.weight from 4 x 4 to 7 x 7" in take_weights(
        model, config
    )
    expected = resample_abs_pos_embed(theirs.pos_embed, [7, 7], [4, 4])[0, 1:]
    torch.testing.assert_close(model.tokenizers["image"].position.table.weight, expected)


@pytest.mark.parametrize("classes", [0, 1])
def test_fewer_than_two_classes_are_refused(tmp_path, classes):
    directory(tmp_path / "timm", "vit_tiny_patch16_224", {"num_classes": classes})
    with pytest.raises(RunError, match=f"a classifier needs at least two classes, but this model has {classes}"):
        import_directory(tmp_path / "timm", tmp_path / "run")
    assert not (tmp_path / "run").exists()
