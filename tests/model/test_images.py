"""Images against transformers' MllamaImageProcessor: pixels, aspect ratios and masks; and files that are no images."""

from __future__ import annotations

import itertools
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

from bpe.errors import InputError
from model import ModelConfig
from model.images import images_of, open_image, tiled, visible_tiles
from model.vision_config import VisionConfig, all_ratios

VISION = VisionConfig(image_size=28, patch_size=7)
CONFIG = ModelConfig(
    dim=48, n_layers=5, n_heads=4, vocab_size=300, cross_attention_layers=(1, 3), vision=VISION, hidden_dim=80
)
PROCESSOR = MllamaImageProcessorPil(
    size={"height": 28, "width": 28}, image_mean=[*VISION.mean], image_std=[*VISION.std], max_image_tiles=4
)
IMAGE = 300
SIDES = (1, 2, 13, 27, 28, 29, 56, 83, 84, 112, 113, 150, 400)


def picture(width: int, height: int, mode: str = "RGB", seed: int = 3) -> Image.Image:
    """Return random pixels of a mode."""
    generator = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(generator.integers(0, 65536, (height, width)).astype(np.uint16))
    if mode in ("I", "F"):
        return Image.fromarray((generator.random((height, width)) * 300).astype({"I": "i4", "F": "f4"}[mode]))
    colours = Image.fromarray(generator.integers(0, 256, (height, width, 4)).astype(np.uint8), "RGBA")
    return colours if mode == "RGBA" else colours.convert("RGB").convert(mode)


def saved(path: Path, image: Image.Image, **options: Any) -> str:
    image.save(path, **options)
    return str(path)


def assert_equal_to_the_processor(path: str) -> None:
    expected = PROCESSOR([[path]], return_tensors="pt")
    image = tiled(open_image(path), VISION)
    found = images_of(CONFIG, [[IMAGE, 5]], [[image]])
    assert np.array_equal(found.pixels.numpy(), expected["pixel_values"].numpy())
    assert found.ratios.tolist() == expected["aspect_ratio_ids"].tolist()
    assert found.tiles.long().tolist() == expected["aspect_ratio_mask"].tolist()
    assert len(image.tiles) == expected["num_tiles"][0][0]


@pytest.mark.parametrize("width", SIDES)
def test_images_of_any_size_have_the_pixels_of_transformers(tmp_path: Path, width: int) -> None:
    for height in SIDES:
        assert_equal_to_the_processor(saved(tmp_path / f"{height}.png", picture(width, height)))


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("1", "a.png"), ("L", "a.png"), ("LA", "a.png"), ("P", "a.png"), ("P", "a.gif"), ("RGB", "a.jpg"),
        ("RGB", "a.bmp"), ("RGB", "a.webp"), ("RGBA", "a.png"), ("RGBA", "a.webp"), ("CMYK", "a.jpg"),
        ("CMYK", "a.tif"), ("YCbCr", "a.jpg"), ("I;16", "a.png"), ("I;16", "a.tif"), ("I", "a.tif"), ("F", "a.tif"),
        ("LAB", "a.tif"),
    ],
)  # fmt: skip
def test_images_of_any_mode_have_the_pixels_of_transformers(tmp_path: Path, mode: str, name: str) -> None:
    assert_equal_to_the_processor(saved(tmp_path / name, picture(40, 75, mode)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_exif_says(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_equal_to_the_processor(saved(tmp_path / "a.jpg", picture(60, 31), exif=exif))


def test_transparency_of_a_palette_and_animations_are_read_as_by_transformers(tmp_path: Path) -> None:
    assert_equal_to_the_processor(saved(tmp_path / "a.png", picture(40, 30, "P"), transparency=bytes(range(256))))
    frames = [picture(40, 30, seed=seed) for seed in range(3)]
    assert_equal_to_the_processor(saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:]))


def test_a_transparent_colour_is_white_as_by_transformers(tmp_path: Path) -> None:
    black = {"1": 0, "L": 0, "RGB": (0, 0, 0)}
    for mode, colour in black.items():
        image = Image.new(mode, (40, 30), colour)
        ImageDraw.Draw(image).rectangle((5, 5, 20, 20), fill=Image.new(mode, (1, 1), "white").getpixel((0, 0)))
        path = saved(tmp_path / f"{mode}.png", image, transparency=colour)
        assert_equal_to_the_processor(path)
        assert open_image(path).getpixel((0, 0)) == (255, 255, 255)
    frames = [picture(40, 30, "P", seed=seed) for seed in range(2)]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:], transparency=7, disposal=2)
    assert_equal_to_the_processor(path)


def test_masks_of_texts_are_those_of_transformers() -> None:
    for length in range(1, 7):
        for letters in itertools.product((5, IMAGE), repeat=length):
            counts = [1 + place % 4 for place in range(letters.count(IMAGE))]
            if not counts:
                continue
            sparse = get_cross_attention_token_mask([*letters], IMAGE)
            expected = convert_sparse_cross_attention_mask_to_dense([sparse], [counts], 4, length)[0]
            assert np.array_equal(visible_tiles(letters, IMAGE, counts, 4), expected)


def test_batches_have_the_padding_of_transformers(tmp_path: Path) -> None:
    paths = [saved(tmp_path / f"{size}.png", picture(size, 40)) for size in (20, 70, 130)]
    expected = PROCESSOR([[paths[0], paths[1]], [paths[2]]], return_tensors="pt")
    first, second, third = (tiled(open_image(path), VISION) for path in paths)
    found = images_of(CONFIG, [[IMAGE, 4, IMAGE], [3, 4, IMAGE]], [[first, second], [third]])
    assert np.array_equal(found.pixels.numpy(), expected["pixel_values"].numpy())
    assert found.ratios.tolist() == expected["aspect_ratio_ids"].tolist()
    assert found.tiles.long().tolist() == expected["aspect_ratio_mask"].tolist()


@pytest.mark.parametrize("tiles", [1, 2, 3, 6])
def test_other_numbers_of_tiles_are_arranged_as_by_transformers(tmp_path: Path, tiles: int) -> None:
    vision = VisionConfig(image_size=28, patch_size=7, max_tiles=tiles, aspect_ratios=all_ratios(tiles))
    for width, height in ((30, 200), (90, 60), (400, 90), (10, 10)):
        path = saved(tmp_path / "a.png", picture(width, height))
        expected = PROCESSOR([[path]], max_image_tiles=tiles, return_tensors="pt")
        image = tiled(open_image(path), vision)
        assert np.array_equal(image.tiles, expected["pixel_values"][0, 0, : len(image.tiles)].numpy())
        assert vision.aspect_ratios.index((image.rows, image.columns)) + 1 == expected["aspect_ratio_ids"].item()


def test_files_that_are_no_images_are_named_with_the_reason(tmp_path: Path) -> None:
    whole = Path(saved(tmp_path / "whole.png", picture(80, 60))).read_bytes()
    tiff = Path(saved(tmp_path / "whole.tif", picture(80, 60), compression="tiff_lzw")).read_bytes()
    files = {
        "empty.png": (b"", r"the file is empty; name an image"),
        "text.jpg": (b"just text", "no format of images that Pillow knows, .*; convert it to PNG or JPEG"),
        "begun.tif": (tiff[:-9], "or the file is damaged; convert it to PNG or JPEG"),
        "print.eps": (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "cannot be read .* converted to PNG or JPEG",
        ),
        "cut.png": (whole[: len(whole) // 2], "cannot be read .*; the file is damaged or truncated"),
        "broken.png": (whole[:60] + b"\0" * 200 + whole[260:], "cannot be read .*; the file is damaged or truncated"),
    }
    for name, (content, words) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: .*{words}"):
            open_image(tmp_path / name)
    with pytest.raises(InputError, match=r"absent.png: no such file"):
        open_image(tmp_path / "absent.png")
    with pytest.raises(InputError, match="is a directory; name an image"):
        open_image(tmp_path)
    with pytest.raises(InputError, match=r"https://x.org/a.png: is not a file but an address; download the image"):
        open_image("https://x.org/a.png")
    with pytest.raises(InputError, match="-: no such file; for an image from stdin, name /dev/stdin"):
        open_image("-")


def test_errors_of_the_system_name_the_image_and_are_not_called_damage(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    for name in ("loop.png", "a" * 400 + ".png"):
        with pytest.raises(OSError, match="links|too long") as caught:
            open_image(tmp_path / name)
        assert caught.value.filename == str(tmp_path / name)


def test_an_image_with_too_many_pixels_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "bomb.png", Image.new("1", (2, 2)))
    whole = Path(path).read_bytes()  # a header that says 20,000 by 20,000, with the right sum
    header = b"IHDR" + (20_000).to_bytes(4, "big") * 2 + whole[24:29]
    Path(path).write_bytes(whole[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole[33:])
    with pytest.raises(InputError, match=r"bomb.png: the image has more than 178,956,970 pixels; make it smaller"):
        open_image(path)


def test_texts_and_images_must_fit_each_other() -> None:
    image = tiled(picture(20, 20), VISION)
    with pytest.raises(InputError, match="the text has 1 image tokens, but 2 images are given"):
        images_of(CONFIG, [[IMAGE, 3]], [[image, image]])
    with pytest.raises(InputError, match="the model takes none; leave them out"):
        images_of(ModelConfig.preset("nano"), [[IMAGE, 3]], [[image]])
    odd = VisionConfig(image_size=28, patch_size=7, aspect_ratios=((1, 1), (2, 1)))
    with pytest.raises(InputError, match=r"aspect_ratios is \[\[1, 1\], \[2, 1\]\]; images are only supported"):
        tiled(picture(20, 20), odd)
