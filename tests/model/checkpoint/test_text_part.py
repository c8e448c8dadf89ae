"""Gemma 3 and Mistral 3 with images, opened as models of text alone, against transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bpe.errors import InputError
from model.checkpoint import open_checkpoint
from model.checkpoint.assemble import assemble
from model.checkpoint.text_part import config_of_text
from support.model_families import SHAPE, randomize

VISION = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16,
    "patch_size": 8,
}  # fmt: skip


def write(path: Path, family: str = "gemma3", **keys: Any) -> Any:
    """Write a tiny model that reads text and images."""
    text = {**SHAPE, "head_dim": 16}
    if family == "gemma3":
        text |= {"sliding_window": 8, "sliding_window_pattern": 2}
        config = transformers.Gemma3Config(text_config=text, vision_config=VISION, mm_tokens_per_image=4, **keys)
        kind = transformers.Gemma3ForConditionalGeneration
    else:
        text |= {"model_type": "mistral", "sliding_window": None, "rms_norm_eps": 1e-5, "rope_theta": 1e9}
        vision = {**VISION, "model_type": "pixtral", "head_dim": 8}
        config = transformers.Mistral3Config(text_config=text, vision_config=vision, **keys)
        kind = transformers.Mistral3ForConditionalGeneration
    config._attn_implementation = "eager"
    torch.manual_seed(1)
    model = randomize(kind(config).eval())
    model.save_pretrained(path)
    return model


@torch.inference_mode()
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("key", ["right", "none", "true"])
@pytest.mark.parametrize("family", ["gemma3", "mistral3"])
def test_the_text_part_has_the_logits_of_transformers(tmp_path: Path, family: str, key: str, tied: bool) -> None:
    theirs = write(tmp_path, family, tie_word_embeddings=tied)
    if key != "right":  # published files of both have no key; transformers saves those of Mistral 3 with true
        data = json.loads((tmp_path / "config.json").read_text())
        del data["tie_word_embeddings"]
        data |= {"tie_word_embeddings": True} if key == "true" else {}
        data["text_config"]["tie_word_embeddings"] = not tied
        (tmp_path / "config.json").write_text(json.dumps(data))
    with pytest.warns(UserWarning, match="vision_tower and multi_modal_projector.*left out"):
        checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.config.tied_embeddings is tied  # an output matrix in the file counts, whatever the key says
    ours = assemble(checkpoint, torch.float32, torch.device("cpu"))
    ids = torch.randint(1, 300, (2, 30), generator=torch.Generator().manual_seed(1))
    assert float((ours(ids) - theirs(ids).logits).abs().max()) < 1e-5


def test_a_key_of_the_text_part_is_named_with_its_place(tmp_path: Path) -> None:
    write(tmp_path)
    data = json.loads((tmp_path / "config.json").read_text())
    data["text_config"]["novelty"] = 3
    (tmp_path / "config.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"config.json: text_config: novelty \(value 3\)"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**data, "tie_word_embeddings": None}))
    with pytest.raises(InputError, match=r"config.json: tie_word_embeddings is null; remove the key"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3"}))
    with pytest.raises(InputError, match="text_config is None"):
        open_checkpoint(tmp_path)
    with pytest.raises(InputError, match="text_config: model_type is 'ministral3'; expected 'mistral'"):
        config_of_text({"model_type": "mistral3", "text_config": {"model_type": "ministral3"}})
