"""Images for Llama 3.2 Vision: files are opened by Pillow, resized, cut into tiles, and placed in texts.

All numbers are those of transformers' MllamaImageProcessor for a path.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bpe.errors import InputError
from bpe.optional import require
from model.config import ModelConfig
from model.vision_config import VisionConfig, all_ratios

if TYPE_CHECKING:
    from model.view import Images


class TiledImage(NamedTuple):
    """An image, cut into tiles."""

    tiles: npt.NDArray[np.float32]
    """[tiles, channels, height, width], normalised."""
    rows: int
    columns: int


def open_image(path: str | os.PathLike[str]) -> Any:
    """Open an image of any format and mode that Pillow reads, turned as its EXIF orientation says.

    An alpha channel is dropped; a single transparent colour becomes white. Of an animation, the first picture is read.

    Returns:
        A PIL.Image of the mode RGB.

    Raises:
        InputError: When Pillow is not installed, or the file is missing, broken, huge or no image.
        OSError: When the system cannot read the file.
    """
    name = os.fsdecode(path)
    pillow, operations = require(name, "PIL.Image"), require(name, "PIL.ImageOps")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of oddities in files that it reads all the same
            with pillow.open(name) as image:
                image.load()
                return _on_white(operations.exif_transpose(image).convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"{name}: {_absent(name)}") from None
    except IsADirectoryError:
        raise InputError(f"{name}: is a directory; name an image, such as a .jpg or .png") from None
    except pillow.DecompressionBombError:
        limit = 2 * (pillow.MAX_IMAGE_PIXELS or 0)
        raise InputError(f"{name}: the image has more than {limit:,} pixels; make it smaller first") from None
    except pillow.UnidentifiedImageError:
        if os.path.getsize(name) == 0:
            raise InputError(f"{name}: the file is empty; name an image, such as a .jpg or .png") from None
        raise InputError(
            f"{name}: no format of images that Pillow knows, or the file is damaged; convert it to PNG or JPEG"
        ) from None
    except MemoryError:
        raise InputError(f"{name}: not enough memory for the image; make it smaller first") from None
    except Exception as error:  # the readers of formats raise errors of many types for damaged files
        if isinstance(error, OSError) and error.errno is not None:  # of the system, not of a reader
            raise OSError(error.errno, error.strerror, name) from None
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{name}: the image cannot be read ({reason}); the file is damaged or truncated, or must be converted to"
            " PNG or JPEG"
        ) from None


def _absent(name: str) -> str:
    """Return what is wrong with the name of a file that does not exist, and what to do."""
    if "://" in name or name.startswith("data:"):
        return "is not a file but an address; download the image, and name its file"
    if name == "-":
        return "no such file; for an image from stdin, name /dev/stdin"
    return "no such file; name an image, such as a .jpg or .png"


def _on_white(image: Any) -> Any:
    """Return an image of the mode RGB whose transparent colour, if it has one, is white, as in transformers."""
    if image.info.get("transparency") is None:
        return image
    from PIL import Image

    clear = image.convert("RGBA")
    white: Any = Image.new("RGBA", clear.size, "white")
    return Image.alpha_composite(white, clear).convert("RGB")


def tiled(image: Any, vision: VisionConfig) -> TiledImage:
    """Return an image of the mode RGB, resized to fit tiles, padded with black, normalised and cut.

    Raises:
        InputError: When the encoder does not read such tiles.
    """
    if vision.aspect_ratios != all_ratios(vision.max_tiles):
        raise InputError(
            f"vision: aspect_ratios is {[*map(list, vision.aspect_ratios)]}; images are only supported with all ratios"
            f" of at most {vision.max_tiles} tiles in their usual order"
        )
    if vision.channels != 3:
        raise InputError(f"vision: channels is {vision.channels}; images have 3")
    from PIL.Image import Resampling

    size, (width, height) = vision.image_size, image.size
    rows, columns = _arrangement(height, width, vision)
    fitted = _fitted(height, width, rows * size, columns * size, size)
    pixels = np.zeros((rows * size, columns * size, 3), np.uint8)
    pixels[: fitted[0], : fitted[1]] = np.asarray(image.resize(fitted[::-1], resample=Resampling.BILINEAR))
    scaled = (pixels.astype(np.float64) * (1 / 255)).astype(np.float32)
    normalised = (scaled - np.array(vision.mean, np.float32)) / np.array(vision.std, np.float32)
    # [rows * size, columns * size, 3] -> [rows, columns, 3, size, size]
    cut = normalised.reshape(rows, size, columns, size, 3).transpose(0, 2, 4, 1, 3)
    return TiledImage(np.ascontiguousarray(cut.reshape(rows * columns, 3, size, size)), rows, columns)


def _arrangement(height: int, width: int, vision: VisionConfig) -> tuple[int, int]:
    """Return the rows and columns of tiles that fit an image best: the least enlargement, else the least reduction."""
    size = vision.image_size
    scales = [min(rows * size / height, columns * size / width) for rows, columns in vision.aspect_ratios]
    enlarging = [scale for scale in scales if scale >= 1]
    best = min(enlarging) if enlarging else max(scales)
    fitting = [pair for pair, scale in zip(vision.aspect_ratios, scales, strict=True) if scale == best]
    return min(fitting, key=math.prod)


def _fitted(height: int, width: int, most_rows: int, most_columns: int, size: int) -> tuple[int, int]:
    """Return the height and width of an image that is resized to fit its tiles, and is not smaller than a tile."""
    columns, rows = min(max(width, size), most_columns), min(max(height, size), most_rows)
    by_height, by_width = rows / height, columns / width
    if by_width < by_height:
        return min(math.floor(height * by_width) or 1, rows), columns
    return rows, min(math.floor(width * by_height) or 1, columns)


def visible_tiles(ids: Sequence[int], image_token: int, counts: Sequence[int], most: int) -> npt.NDArray[np.bool_]:
    """Return the tiles that each token of a text attends to: bool [time, images, tiles].

    A token attends to the last image before it, and to those right before that image; an image's own token does too.

    Args:
        ids: The text.
        image_token: The id that stands for an image.
        counts: The number of tiles of each image.
        most: The largest number of tiles of an image.

    Raises:
        InputError: When the text has another number of image tokens.
    """
    places = [place for place, id in enumerate(ids) if id == image_token]
    if len(places) != len(counts):
        raise InputError(
            f"the text has {len(places)} image tokens, but {len(counts)} images are given; put one token for each image"
        )
    ends = [*places[1:], len(ids)]
    for image in reversed(range(len(places) - 1)):
        if ends[image] == places[image] + 1:  # the next image follows at once: both are seen together
            ends[image] = ends[image + 1]
    visible = np.zeros((len(ids), len(places), most), np.bool_)
    for image, (place, end) in enumerate(zip(places, ends, strict=True)):
        visible[place:end, image, : counts[image]] = True
    return visible


def images_of(
    config: ModelConfig, texts: Sequence[Sequence[int]], images: Sequence[Sequence[TiledImage]], device: Any = "cpu"
) -> Images:
    """Return the images of several texts as a model takes them.

    Args:
        config: The configuration of the model.
        texts: The ids of each text; all have the same length.
        images: The images of each text.
        device: The device of the tensors.

    Raises:
        InputError: When the model takes no images, or a text has another number of image tokens than images.
    """
    vision, token = config.vision, config.image_token
    if vision is None or token is None:
        raise InputError(
            "images are given, but the model takes none; leave them out, or load a model with an image encoder"
        )
    import torch

    from model.view import Images

    most, size = max(1, *map(len, images)), vision.image_size
    pixels = np.zeros((len(texts), most, vision.max_tiles, vision.channels, size, size), np.float32)
    ratios, tiles = np.zeros((len(texts), most), np.int64), np.zeros((len(texts), most, vision.max_tiles), np.bool_)
    tiles[:, :, 0] = True
    visible = np.zeros((len(texts), len(texts[0]), most, vision.max_tiles), np.bool_)
    for row, (ids, own) in enumerate(zip(texts, images, strict=True)):
        for place, image in enumerate(own):
            pixels[row, place, : len(image.tiles)] = image.tiles
            tiles[row, place, : len(image.tiles)] = True
            ratios[row, place] = vision.aspect_ratios.index((image.rows, image.columns)) + 1
        seen = visible_tiles(ids, token, [len(image.tiles) for image in own], vision.max_tiles)
        visible[row, :, : len(own)] = seen
    return Images(*(torch.from_numpy(array).to(device) for array in (pixels, ratios, tiles, visible)))
