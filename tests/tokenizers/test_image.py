"""Images: how they are decoded, cut into patches and augmented, and which input is refused."""

import io
import math
import subprocess
import sys
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from chopmix.files.reading import DataError
from chopmix.models.layers.positions import LearnedGrid, SinusoidalGrid
from chopmix.tokenizers.chopping.packing import pack
from chopmix.tokenizers.image import ImageChopper, ImageTokenizer, patches
from chopmix.tokenizers.media.augmentation import ImageAugmentation, shifted, turned, uniform
from chopmix.tokenizers.media.jpeg_png import read_jpeg_png
from chopmix.tokenizers.media.rand_augment import STRONGEST, operations
from chopmix.tokenizers.video import VideoChopper, VideoTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import RandAugment
from torchvision.transforms.v2.functional import center_crop

COLOUR = ImageChopper(patch_size=4, size=8)
GREY = ImageChopper(patch_size=4, channels=1, size=8)


def image_file(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


# ------------------------------------------------------------------------------------------------------- reading


def test_bytes_paths_arrays_and_pictures_give_the_same_image(tmp_path):
    picture = Image.fromarray(pixels())
    (tmp_path / "a.png").write_bytes(image_file(picture))
    expected = torch.from_numpy(pixels()).permute(2, 0, 1)
    for raw in (image_file(picture), str(tmp_path / "a.png"), tmp_path / "a.png", picture, pixels(), expected):
        assert torch.equal(COLOUR.decode(raw), expected)


def test_grey_images_become_colour_images_and_vice_versa():
    grey = Image.fromarray(pixels()).convert("L")
    assert COLOUR.decode(image_file(grey)).shape == (3, 8, 8)
    ours, theirs = GREY.decode(pixels()).int(), torch.from_numpy(np.array(grey)).int()
    assert (ours[0] - theirs).abs().max() <= 1


def test_the_exif_orientation_rotates_the_picture():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise
    raw = image_file(Image.fromarray(pixels(8, 12)), exif=exif)
    assert COLOUR.decode(raw).shape == (3, 12, 8)
    assert torch.equal(COLOUR.decode(raw), torch.from_numpy(np.rot90(pixels(8, 12), -1).copy()).permute(2, 0, 1))


def test_16_bit_cmyk_animated_transparent_and_tiny_images_are_read():
    deep = Image.fromarray(np.full((8, 8), 257 * 100, dtype=np.uint16))
    assert GREY.decode(image_file(deep)).unique().tolist() == [100]
    dark = Image.fromarray(np.full((8, 8), 200, dtype=np.uint16))
    assert GREY.decode(image_file(dark)).unique().tolist() == [0]  # relative to 65,535, not to the brightest pixel
    cmyk = Image.fromarray(pixels()).convert("CMYK")
    assert COLOUR.decode(image_file(cmyk, "TIFF")).shape == (3, 8, 8)
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    first = COLOUR.decode(image_file(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert first[:, 0, 0].tolist() == [255, 0, 0]
    clear = COLOUR.decode(image_file(Image.new("RGBA", (8, 8), (10, 20, 30, 0))))
    assert clear.unique().tolist() == [255]
    assert COLOUR.chop(COLOUR.decode(image_file(Image.new("RGB", (1, 1), "white")))).values.shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "the image has no bytes"),
        (b"no image at all", "the image cannot be read"),
        (image_file(Image.fromarray(pixels(64, 64)))[:100], "the image cannot be read"),
        ("missing.png", "the image cannot be read: missing.png does not exist"),
        (
            image_file(Image.fromarray(np.ones((8, 8), dtype=np.float32)), "TIFF"),
            "the image has floating-point pixels, whose range is unknown",
        ),
        (np.zeros((8, 8, 3)), "must hold whole numbers from 0 to 255"),
        (np.zeros((8, 8, 2), dtype=np.uint8), "2 channels; possible: 1 or 3"),
    ],
)
def test_unreadable_images_are_refused(raw, message):
    with pytest.raises(ValueError, match=message):
        COLOUR.decode(raw)


# ------------------------------------------------------------------------------------------------------- cutting


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from(["resize", "crop", "pad"]))
@settings(max_examples=30, deadline=None)
def test_images_of_one_size_have_one_number_of_tokens(height, width, fit):
    chopper = ImageChopper(patch_size=4, size=(8, 12), fit_size=fit)
    chunk = chopper.chop(torch.zeros(3, height, width, dtype=torch.uint8))
    assert chunk.count == 6 == len(chunk.coordinates) and chunk.values.shape == (1, 3, 8, 12)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_images_of_any_size_have_at_most_the_allowed_number_of_tokens(height, width, most):
    chopper = ImageChopper(patch_size=4, most_tokens=most)
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    chunk = chopper.chop(image)
    assert 1 <= chunk.count <= most and chunk.count == chopper.count(image)
    assert chunk.values.shape[-2] * chunk.values.shape[-1] == chunk.count * 16


def test_patches_are_squares_from_left_to_right():
    image = torch.arange(64).view(1, 1, 8, 8)
    assert patches(image, 4)[1].tolist() == image[0, 0, :4, 4:].flatten().tolist()


def test_images_of_several_sizes_in_a_batch_are_independent():
    torch.manual_seed(0)
    chopper = ImageChopper(patch_size=4)
    model = ImageTokenizer(chopper, 16, 64, position=SinusoidalGrid)
    images = [torch.randint(256, shape).to(torch.uint8) for shape in ((3, 8, 12), (3, 4, 4))]
    together = model(
        pack([[("image", image)] for image in images], {"image": chopper}, 64, ("order", "row", "column")).chunks[
            "image"
        ]
    )
    alone = [
        model(pack([[("image", image)]], {"image": chopper}, 64, ("order", "row", "column")).chunks["image"])
        for image in images
    ]
    torch.testing.assert_close(together, torch.cat(alone))


def test_grid_positions_distinguish_rows_from_columns():
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


def test_random_numbers_are_uniform_and_depend_only_on_the_seed():
    """They are evenly spread over [0, 1), different for neighbouring seeds and streams, and the same on every device
    and in every batch."""
    seeds = torch.arange(4000)
    numbers = uniform(seeds, 3, stream=2)
    assert numbers.min() >= 0 and numbers.max() < 1
    for row in numbers:
        assert torch.histc(row, 10, 0, 1).min() > 320
    together = torch.corrcoef(torch.cat([numbers, uniform(seeds, 3, stream=3), uniform(seeds + 1, 3, stream=2)]))
    assert (together - torch.eye(9)).abs().max() < 0.06
    assert torch.equal(uniform(seeds[7:8], 3, stream=2), numbers[:, 7:8])
    # of SplitMix64's reference implementation, seeded with 0: the third number is 0x06c45d188009454f
    assert uniform(torch.tensor([0]), 3)[2, 0].item() == 0x06C45D188009454F // 2**40 / 2**24


def test_each_image_is_shifted_independently():
    images = torch.zeros(200, 1, 7, 7, dtype=torch.uint8)
    images[:, :, 3, 3] = 255
    moved = shifted(images, 2, uniform(torch.arange(200), 2))
    assert (moved.sum((1, 2, 3)) == 255).all()
    rows = moved.amax(3)[:, 0].argmax(1)
    assert set(rows.tolist()) == {1, 2, 3, 4, 5} and moved.dtype == torch.uint8


@pytest.mark.parametrize("height, width", [(8, 8), (8, 14), (14, 8), (9, 31)])
def test_rotation_works_in_pixels_for_every_shape(height, width):
    """A clockwise rotation by 90 degrees equals that of torch where the images overlap, a rotation by 0 degrees changes
    nothing, and with a zoom of 2 a pixel becomes four."""
    image = torch.randint(256, (1, 2, height, width), generator=torch.Generator().manual_seed(0)).float()
    ones, zeros = torch.ones(1), torch.zeros(1)
    torch.testing.assert_close(turned(image, zeros, ones), image, atol=1e-2, rtol=0)
    expected, side = torch.rot90(image, -1, (2, 3)), min(height, width)
    rotated, expected = (center_crop(each, [side, side]) for each in (turned(image, 90 * ones, ones), expected))
    torch.testing.assert_close(rotated[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1e-2, rtol=0)
    ramp = torch.arange(width).float().expand(1, 1, height, width)
    assert turned(ramp, zeros, 2 * ones).diff(dim=-1)[..., 2:-2].mean().item() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("degrees", [10.0, 30.0, -50.0])
def test_a_line_is_rotated_by_the_requested_angle(degrees):
    """The image is three times as wide as high. It would be sheared if both sides had the length 1."""
    image = torch.zeros(1, 1, 61, 183)
    image[..., 30, :] = 255.0
    rotated = turned(image, torch.tensor([degrees]), torch.ones(1))[0, 0]
    row, column = (rotated[:, 70:113] > 100).nonzero().float().unbind(1)
    slope = ((row - row.mean()) * (column - column.mean())).sum() / (column - column.mean()).square().sum()
    assert math.degrees(math.atan(slope)) == pytest.approx(degrees, abs=2.0)


@pytest.mark.parametrize("magnitude", [0, 9, 30])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_operations_of_rand_augment_equal_those_of_torchvision(magnitude, channels):
    theirs = RandAugment(1, magnitude, fill=128)
    images = torch.randint(256, (5, channels, 12, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    space = [
        (name, magnitudes, signed)
        for name, (magnitudes, signed) in theirs._AUGMENTATION_SPACE.items()
        if name != "Identity"
    ]
    ours = operations(magnitude / STRONGEST, 12, 16)
    assert len(ours) == len(space) == 13
    for (forth, back), (name, magnitudes, signed) in zip(ours, space):
        values = magnitudes(31, 12, 16)
        strength = 0.0 if values is None else float(values[magnitude])
        assert (back is not None) == signed
        for change, sign in ((forth, 1), (back, -1)) if signed else ((forth, 1),):
            expected = theirs._apply_image_or_video_transform(
                images, name, sign * strength, theirs.interpolation, theirs._fill
            )
            assert (change(images).int() - expected.int()).abs().max() <= 1, name


AUGMENTATIONS = [
    {"flip": True}, {"operations": 2}, {"operations": 3, "magnitude": 20}, {"erase": 0.3}, {"shift": 2},
    {"rotate": 10.0, "zoom": 0.1, "shift": 1}, {"transforms": [{"use": "ColorJitter", "brightness": 0.5, "hue": 0.3}]},
    {"flip": True, "operations": 2, "rotate": 5.0, "zoom": 0.1, "shift": 1, "erase": 0.2},
]  # fmt: skip


@pytest.mark.parametrize("options", AUGMENTATIONS)
def test_augmentation_depends_only_on_the_image_and_its_seed(options):
    """The batch, the micro-batch, the order and torch's generator do not matter. Images with the same seed are changed
    in the same way."""
    change = ImageAugmentation(**options)
    images = torch.randint(256, (40, 3, 8, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    seeds = torch.randint(2**62, (40,), generator=torch.Generator().manual_seed(1))
    whole, state = change(images, seeds), torch.get_rng_state()
    order = torch.randperm(40)
    torch.testing.assert_close(change(images[order], seeds[order]), whole[order], rtol=0, atol=1e-3)
    parts = [change(images[a : a + 7], seeds[a : a + 7]) for a in range(0, 40, 7)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-3)
    if "transforms" in options:
        torch.set_rng_state(state)
        change(images, seeds)
        assert torch.equal(torch.get_rng_state(), state)
    same = change(images[:1].expand(6, -1, -1, -1), seeds[:1].expand(6))
    assert (same == same[:1]).all()
    other = change(images[:1].expand(40, -1, -1, -1), seeds)
    assert len({tuple(image.flatten().tolist()) for image in other}) > 1


@pytest.mark.parametrize("options", AUGMENTATIONS)
def test_images_are_augmented_only_in_training(options):
    tokenizer = ImageTokenizer(COLOUR, 16, 64, augment=lambda: ImageAugmentation(**options))
    images = [[("image", torch.from_numpy(pixels()).permute(2, 0, 1))]] * 9
    chunks = pack(images, {"image": COLOUR}, 64, ("order", "row", "column")).chunks["image"]
    seeded = replace(chunks, seeds=torch.randint(2**62, (9,), generator=torch.Generator().manual_seed(1)))
    assert torch.equal(tokenizer.eval()(chunks), tokenizer.eval()(seeded))
    assert not torch.equal(tokenizer.train()(seeded), tokenizer.eval()(chunks))


def test_invalid_augmentations_are_refused():
    with pytest.raises(ValueError, match="must be 0 or more"):
        ImageAugmentation(shift=-1)
    with pytest.raises(ValueError, match="magnitude must be 0 to 30, not 31"):
        ImageAugmentation(magnitude=31)


def test_transforms_of_torchvision_are_used_by_name():
    images, seeds = torch.randint(256, (20, 3, 8, 12), dtype=torch.uint8), torch.arange(20)
    change = ImageAugmentation(
        transforms=[{"use": "ColorJitter", "brightness": 0.5}, {"use": "RandomInvert", "p": 1.0}]
    )
    jittered = change(images, seeds)
    assert jittered.shape == images.shape and jittered.dtype == torch.uint8
    assert torch.equal(ImageAugmentation(transforms=[{"use": "RandomInvert", "p": 1.0}])(images, seeds), 255 - images)
    brightness = [
        float(result.float().mean() / (255 - image.float()).mean()) for result, image in zip(jittered, images)
    ]
    assert len({round(value, 2) for value in brightness}) > 10  # drawn independently for every image
    with pytest.raises(ValueError, match="no transform 'ColorJiter'; possible: ColorJitter"):
        ImageAugmentation(transforms=[{"use": "ColorJiter"}])
    with pytest.raises(ValueError, match="ColorJitter: .*unexpected keyword argument 'bright'"):
        ImageAugmentation(transforms=[{"use": "ColorJitter", "bright": 1}])
    with pytest.raises(
        ValueError, match=r"Resize changes the shape \(3, 8, 12\) to \(3, 4, 4\); it must keep the size"
    ):
        ImageAugmentation(transforms=[{"use": "Resize", "size": [4, 4]}])(images, seeds)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"mean": []}, r"mean must be one number, or one for each of 3 channels, not \[\]"),
        ({"mean": [0.5, 0.5]}, "one for each of 3 channels"),
        ({"std": 0.0}, "std must be more than 0, not 0.0"),
        ({"std": [0.1, 0.2, -0.3]}, "std must be more than 0"),
    ],
)
def test_statistics_must_fit_the_channels(options, match):
    with pytest.raises(ValueError, match=match):
        ImageTokenizer(COLOUR, 16, 64, **options)
    with pytest.raises(ValueError, match=match):
        VideoTokenizer(VideoChopper(patch_size=4, size=8), 16, 64, **options)


def test_a_line_of_pixels_is_cropped_before_it_is_enlarged():
    """Enlarged first, 1 by 100,000 pixels would become five gigapixels, of which 224 by 224 are used."""
    chopper = ImageChopper(size=224, fit_size="crop")
    line = torch.zeros(3, 1, 100_000, dtype=torch.uint8)
    line[..., 49_000:51_000] = 9
    assert (chopper.resized(line, 224, 224) == 9).all() and (chopper.resized(line.mT, 224, 224) == 9).all()
    for wrong in (0.0, 1e-320):
        with pytest.raises(ValueError, match=r"crop must be from 0\.01 to 1"):
            ImageChopper(size=224, crop=wrong)


def test_the_number_of_pixels_of_a_side_is_limited():
    assert ImageChopper(size=2**14, patch_size=2)
    with pytest.raises(ValueError, match="must be at most 16,384 pixels"):
        ImageChopper(size=(16, 2**63), patch_size=2)


@given(seed=st.integers(0, 2**32), size=st.tuples(st.integers(1, 70), st.integers(1, 70)), quality=st.integers(20, 100),
       colour=st.booleans(), progressive=st.booleans(), orientation=st.integers(0, 8),
       subsampling=st.integers(0, 2))  # fmt: skip
def test_jpegs_are_decoded_as_by_pillow(seed, size, quality, colour, progressive, orientation, subsampling):
    """torchvision decodes them in less time."""
    noise = np.random.default_rng(seed).integers(0, 255, (size[0] // 8 + 1, size[1] // 8 + 1, 3), dtype=np.uint8)
    picture, exif, file = Image.fromarray(noise).resize(size[::-1]), Image.Exif(), io.BytesIO()
    exif[274] = orientation
    options = {"quality": quality, "progressive": progressive, "subsampling": subsampling if colour else 0}
    (picture if colour else picture.convert("L")).save(file, "JPEG", exif=exif, **options)
    chopper = ImageChopper(patch_size=4, channels=3)
    decoded = chopper.decode(file.getvalue())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("chopmix.tokenizers.image.read_jpeg_png", lambda raw: None)
        assert torch.equal(decoded, chopper.decode(file.getvalue()))
    assert read_jpeg_png(file.getvalue()) is not None
    assert read_jpeg_png(file.getvalue()[: len(file.getvalue()) // 2]) is None or size[0] * size[1] < 64


def png(seed, size, mode, **options) -> bytes:
    noise, file = np.random.default_rng(seed).integers(0, 255, (*size, 4), dtype=np.uint8), io.BytesIO()
    picture = (
        Image.fromarray(noise[..., 0].astype(np.uint16)) if mode == "I;16" else Image.fromarray(noise).convert(mode)
    )
    picture.save(file, "PNG", **options)
    return file.getvalue()


@given(
    seed=st.integers(0, 2**32), size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.sampled_from((1, 3)), mode=st.sampled_from(("L", "RGB", "RGBA", "LA", "P", "1", "I;16")),
    level=st.integers(0, 9), cut=st.integers(0, 400), flipped=st.integers(0, 400),
)  # fmt: skip
def test_pngs_are_decoded_as_by_pillow(seed, size, channels, mode, level, cut, flipped):
    """torchvision decodes usual PNGs in less time. Both refuse a damaged file."""
    content = png(seed, size, mode, compress_level=level)
    assert (read_jpeg_png(content) is not None) == (mode in ("L", "RGB"))
    chopper = ImageChopper(patch_size=4, channels=channels)
    changed = bytearray(content)
    changed[flipped % len(content)] ^= 1 + seed % 255
    for each in (content, content[: cut % len(content)], bytes(changed)):
        result = decoded_or_error(chopper, each)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("chopmix.tokenizers.image.read_jpeg_png", lambda raw: None)
            expected = decoded_or_error(chopper, each)
        assert type(result) is type(expected)
        assert torch.equal(result, expected) if isinstance(result, torch.Tensor) else str(result) == str(expected)


def decoded_or_error(chopper, content):
    try:
        return chopper.decode(content)
    except DataError as error:
        return error


@pytest.mark.parametrize("kind", ["orientation", "profile", "interlaced", "transparent", "animated"])
def test_unusual_pngs_are_decoded_by_pillow(kind):
    picture, file, options = Image.new("RGB", (5, 7), "red"), io.BytesIO(), {}
    if kind == "orientation":
        options["exif"] = Image.Exif()
        options["exif"][274] = 6
    if kind == "profile":
        options["icc_profile"] = b"profile"
    if kind == "transparent":
        options["transparency"] = (255, 0, 0)
    if kind == "animated":
        options |= {"save_all": True, "append_images": [Image.new("RGB", (5, 7))]}
    picture.save(file, "PNG", **options)
    content = file.getvalue()
    if kind == "interlaced":
        header = content[12:28] + b"\1"
        content = content[:12] + header + zlib.crc32(header).to_bytes(4, "big") + content[33:]
    assert read_jpeg_png(content) is None
    if kind == "orientation":
        assert ImageChopper(patch_size=1, channels=3).decode(content).shape == (3, 5, 7)
    if kind == "transparent":
        assert (ImageChopper(patch_size=1, channels=3).decode(content) == 255).all()


@pytest.mark.system
def test_torchvision_is_not_imported_for_a_few_pngs():
    """Its import takes a second."""
    code = """
import sys
from chopmix.tokenizers.media import jpeg_png
content = sys.stdin.buffer.read()
jpeg_png.FEW = 3
used = [jpeg_png.read_jpeg_png(content) is not None for _ in range(5)]
assert used == [False, False, False, True, True], used
"""
    done = subprocess.run([sys.executable, "-c", code], input=png(0, (4, 4), "L"), capture_output=True)
    assert done.returncode == 0, done.stderr
