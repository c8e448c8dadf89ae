"""Tiny models of Llama 3.2 Vision as transformers makes them, and inputs with images for them and for ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from model.view import Images

IMAGE = 300
"""The id of the image token."""
TEXT: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 5, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "cross_attention_layers": [1, 3], "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 4, "num_global_layers": 2, "attention_heads": 4, "intermediate_size": 48,
    "vision_output_dim": 96, "image_size": 28, "patch_size": 7, "max_num_tiles": 4,
    "intermediate_layers_indices": [1, 2],
}  # fmt: skip


def make(text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None, seed: int = 1) -> Any:
    """Return a model of transformers with random weights in float32, gates and biases included."""
    config = transformers.MllamaConfig(
        text_config={**TEXT, **(text or {})}, vision_config={**VISION, **(vision or {})}, image_token_index=IMAGE
    )
    torch.manual_seed(seed)
    model = transformers.MllamaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gate" in name and parameter.numel() == 1:
                parameter.fill_(0.5 + 0.3 * torch.rand(()).item())
            elif parameter.dim() == 1 and "class" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif "embed" in name:
                parameter.normal_(std=0.5)
            else:
                parameter.normal_(std=0.8 / parameter.shape[-1] ** 0.5)
    return model


def write(path: Path, text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None) -> Any:
    """Write a model as transformers does, and return it."""
    model = make(text, vision)
    model.save_pretrained(path)
    return model


def some_ids(*texts: str, seed: int = 5) -> Tensor:
    """Return ids [batch, time]: random ones for letters, the image token for "I", padding for "."."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(3, 300, (len(texts), max(map(len, texts))), generator=generator)
    for row, text in zip(rows, texts, strict=True):
        for place, letter in enumerate(text):
            row[place] = {"I": IMAGE, ".": 0}.get(letter, int(row[place]))
    return rows


def some_images(ids: Tensor, ratios: list[list[tuple[int, int]]], seed: int = 7, size: int = 28) -> dict[str, Tensor]:
    """Return random images as transformers' processor does: its arguments for the model.

    Args:
        ids: The ids [batch, time], with an image token for each image.
        ratios: The rows and columns of tiles of the images of each text.
        seed: The seed of the pixels.
        size: The height and width of a tile.
    """
    from transformers.models.mllama.image_processing_pil_mllama import get_all_supported_aspect_ratios
    from transformers.models.mllama.processing_mllama import (
        convert_sparse_cross_attention_mask_to_dense,
        get_cross_attention_token_mask,
    )

    numbers = [tuple(pair) for pair in get_all_supported_aspect_ratios(4)]
    most = max(map(len, ratios))
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.zeros(len(ratios), most, 4, 3, size, size)
    ids_of_ratios, mask = torch.zeros(len(ratios), most, dtype=torch.long), torch.zeros(len(ratios), most, 4)
    mask[:, :, 0] = 1
    for row, pairs in enumerate(ratios):
        for image, (height, width) in enumerate(pairs):
            ids_of_ratios[row, image] = numbers.index((height, width)) + 1
            mask[row, image, : height * width] = 1
            pixels[row, image, : height * width] = torch.randn(height * width, 3, size, size, generator=generator)
    sparse = [get_cross_attention_token_mask(row.tolist(), IMAGE) for row in ids]
    tiles = [[height * width for height, width in pairs] for pairs in ratios]
    dense = convert_sparse_cross_attention_mask_to_dense(sparse, tiles, 4, ids.shape[1])
    return {
        "pixel_values": pixels, "aspect_ratio_ids": ids_of_ratios, "aspect_ratio_mask": mask.long(),
        "cross_attention_mask": torch.from_numpy(dense),
    }  # fmt: skip


def as_ours(images: dict[str, Tensor]) -> Images:
    """Return the same images as our models take them."""
    return Images(
        images["pixel_values"],
        images["aspect_ratio_ids"],
        images["aspect_ratio_mask"].bool(),
        images["cross_attention_mask"].bool(),
    )
