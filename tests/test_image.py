"""Images: what is read, how it is cut, and what cannot be read is said."""

import io

import numpy as np
import pytest
import torch
from chopmix.data.packing import pack
from chopmix.models.positions import LearnedGrid, SinusoidalGrid
from chopmix.tokenizers.augmentation import ImageAugmentation, shifted, turned
from chopmix.tokenizers.image import ImageChopper, ImageTokenizer, patches
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

COLOUR = ImageChopper(patch_size=4, size=8)
GREY = ImageChopper(patch_size=4, channels=1, size=8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


# ------------------------------------------------------------------------------------------------------- reading


def test_bytes_paths_arrays_and_pictures_are_one_image(tmp_path):
    picture = Image.fromarray(pixels())
    (tmp_path / "a.png").write_bytes(encoded(picture))
    expected = torch.from_numpy(pixels()).permute(2, 0, 1)
    for raw in (encoded(picture), str(tmp_path / "a.png"), tmp_path / "a.png", picture, pixels(), expected):
        assert torch.equal(COLOUR.decode(raw), expected)


def test_grey_and_colour_turn_into_each_other():
    grey = Image.fromarray(pixels()).convert("L")
    assert COLOUR.decode(encoded(grey)).shape == (3, 8, 8)
    ours, theirs = GREY.decode(pixels()).int(), torch.from_numpy(np.array(grey)).int()
    assert (ours[0] - theirs).abs().max() <= 1


def test_exif_turns_the_picture():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    raw = encoded(Image.fromarray(pixels(8, 12)), exif=exif)
    assert COLOUR.decode(raw).shape == (3, 12, 8)
    assert torch.equal(COLOUR.decode(raw), torch.from_numpy(np.rot90(pixels(8, 12), -1).copy()).permute(2, 0, 1))


def test_sixteen_bits_cmyk_palettes_animations_and_transparency_are_read():
    deep = Image.fromarray(np.full((8, 8), 257 * 100, dtype=np.uint16))
    assert GREY.decode(encoded(deep)).unique().tolist() == [100]
    dark = Image.fromarray(np.full((8, 8), 200, dtype=np.uint16))
    assert GREY.decode(encoded(dark)).unique().tolist() == [0]  # of 65,535, whatever the brightest pixel is
    cmyk = Image.fromarray(pixels()).convert("CMYK")
    assert COLOUR.decode(encoded(cmyk, "TIFF")).shape == (3, 8, 8)
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    first = COLOUR.decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert first[:, 0, 0].tolist() == [255, 0, 0]
    clear = COLOUR.decode(encoded(Image.new("RGBA", (8, 8), (10, 20, 30, 0))))
    assert clear.unique().tolist() == [255]
    assert COLOUR.chop(COLOUR.decode(encoded(Image.new("RGB", (1, 1), "white")))).values.shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "the image has no bytes"),
        (b"no image at all", "the image cannot be read"),
        (encoded(Image.fromarray(pixels(64, 64)))[:100], "the image cannot be read"),
        ("missing.png", "the image cannot be read: .*No such file"),
        (
            encoded(Image.fromarray(np.ones((8, 8), dtype=np.float32)), "TIFF"),
            "floating-point numbers, of no known range",
        ),
        (np.zeros((8, 8, 3)), "must hold whole numbers from 0 to 255"),
        (np.zeros((8, 8, 2), dtype=np.uint8), "2 channels; possible: 1 or 3"),
    ],
)
def test_what_cannot_be_read_is_said(raw, message):
    with pytest.raises(ValueError, match=message):
        COLOUR.decode(raw)


# ------------------------------------------------------------------------------------------------------- cutting


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from(["resize", "crop", "pad"]))
@settings(max_examples=30, deadline=None)
def test_one_size_gives_one_number_of_tokens(height, width, fit):
    chopper = ImageChopper(patch_size=4, size=(8, 12), fit_size=fit)
    piece = chopper.chop(torch.zeros(3, height, width, dtype=torch.uint8))
    assert piece.count == 6 == len(piece.coordinates) and piece.values.shape == (1, 3, 8, 12)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_native_sizes_stay_under_the_budget_and_near_the_aspect(height, width, most):
    chopper = ImageChopper(patch_size=4, most_tokens=most)
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    piece = chopper.chop(image)
    assert 1 <= piece.count <= most and piece.count == chopper.count(image)
    assert piece.values.shape[-2] * piece.values.shape[-1] == piece.count * 16


def test_patches_are_squares_from_left_to_right():
    image = torch.arange(64).view(1, 1, 8, 8)
    assert patches(image, 4)[1].tolist() == image[0, 0, :4, 4:].flatten().tolist()


def test_images_of_several_sizes_give_the_vectors_of_each_alone():
    torch.manual_seed(0)
    chopper = ImageChopper(patch_size=4)
    model = ImageTokenizer(chopper, 16, 64, position=SinusoidalGrid)
    images = [torch.randint(256, shape).to(torch.uint8) for shape in ((3, 8, 12), (3, 4, 4))]
    together = model(
        pack([[("image", image)] for image in images], {"image": chopper}, 64, ("order", "row", "column")).pieces[
            "image"
        ]
    )
    alone = [
        model(pack([[("image", image)]], {"image": chopper}, 64, ("order", "row", "column")).pieces["image"])
        for image in images
    ]
    torch.testing.assert_close(together, torch.cat(alone))


def test_grids_know_rows_from_columns():
    coordinates = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    for position in LearnedGrid(16, (2, 3)), SinusoidalGrid(16, None):
        first, second = position(coordinates)
        assert first.shape == (16,) and not torch.allclose(first, second)


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match=r"size 10 must be a multiple of patch_size \(4\)"):
        ImageChopper(patch_size=4, size=10)
    with pytest.raises(ValueError, match="learned_grid needs images of one 'size'"):
        ImageTokenizer(ImageChopper(), 16, 64)
    with pytest.raises(ValueError, match="multiple of 4, not 6"):
        SinusoidalGrid(6, None)


# ------------------------------------------------------------------------------------------------- augmentation


def test_shifting_moves_each_image_by_itself():
    torch.manual_seed(0)
    images = torch.zeros(200, 1, 7, 7, dtype=torch.uint8)
    images[:, :, 3, 3] = 255
    found = shifted(images, 2)
    assert (found.sum((1, 2, 3)) == 255).all()
    rows = found.amax(3)[:, 0].argmax(1)
    assert set(rows.tolist()) == {1, 2, 3, 4, 5} and found.dtype == torch.uint8


def test_turning_by_nothing_is_nothing():
    images = torch.randint(256, (3, 1, 8, 8)).to(torch.uint8)
    torch.testing.assert_close(turned(images, 0.0, 0.0), images.float(), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    "options", [{"flip": True}, {"operations": 2}, {"erase": 0.3}, {"rotate": 10.0, "zoom": 0.1, "shift": 1}]
)
def test_augmentation_acts_while_training_only(options):
    torch.manual_seed(0)
    tokenizer = ImageTokenizer(COLOUR, 16, 64, augment=lambda: ImageAugmentation(**options))
    images = [[("image", torch.from_numpy(pixels()).permute(2, 0, 1))]] * 9
    pieces = pack(images, {"image": COLOUR}, 64, ("order", "row", "column")).pieces["image"]
    assert torch.equal(tokenizer.eval()(pieces), tokenizer.eval()(pieces))
    assert not torch.equal(tokenizer.train()(pieces), tokenizer.eval()(pieces))


def test_augmentation_refuses_what_means_nothing():
    with pytest.raises(ValueError, match="must be 0 or more"):
        ImageAugmentation(shift=-1)


def test_any_transform_of_torchvision_by_name():
    torch.manual_seed(0)
    images = torch.randint(256, (20, 3, 8, 12), dtype=torch.uint8)
    change = ImageAugmentation(
        transforms=[{"use": "ColorJitter", "brightness": 0.5}, {"use": "RandomInvert", "p": 1.0}]
    )
    found = change(images)
    assert found.shape == images.shape and found.dtype == torch.uint8
    assert torch.equal(ImageAugmentation(transforms=[{"use": "RandomInvert", "p": 1.0}])(images), 255 - images)
    brightness = [
        part.float().mean() / (255 - own.float()).mean() for part, own in zip(found.split(8), images.split(8))
    ]
    assert len({round(float(value), 2) for value in brightness}) > 1  # drawn anew for every group of images
    with pytest.raises(ValueError, match="no transform 'ColorJiter'; possible: ColorJitter"):
        ImageAugmentation(transforms=[{"use": "ColorJiter"}])
    with pytest.raises(ValueError, match="ColorJitter: .*unexpected keyword argument 'bright'"):
        ImageAugmentation(transforms=[{"use": "ColorJitter", "bright": 1}])
    with pytest.raises(
        ValueError, match=r"Resize made images of \(3, 8, 12\) into \(3, 4, 4\); it must keep their size"
    ):
        ImageAugmentation(transforms=[{"use": "Resize", "size": [4, 4]}])(images)
