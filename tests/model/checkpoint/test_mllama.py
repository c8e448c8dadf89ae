"""Files of Llama 3.2 Vision in Hugging Face's form, read and written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

from bpe import train_from_counts
from bpe.errors import InputError
from model.checkpoint import open_checkpoint
from model.checkpoint.assemble import assemble
from model.checkpoint.bpe_llama import write as write_own
from model.checkpoint.gguf import write as write_gguf
from model.checkpoint.huggingface import open_checkpoint as open_huggingface
from model.checkpoint.huggingface import write as write_huggingface
from model.checkpoint.meta import write as write_meta
from support.vision_models import as_ours, some_ids, some_images, write


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Return a directory that transformers wrote, with a tokenizer, and the model."""
    path = tmp_path_factory.mktemp("mllama")
    theirs = write(path)
    train_from_counts({"abc": 2}, vocab_size=258, special_tokens=["<|end|>"]).save(path / "tokenizer.json")
    return path, theirs


def logits(path: Path) -> Tensor:
    model = assemble(open_checkpoint(path), torch.float32, torch.device("cpu")).eval()
    ids = some_ids("abIcde")
    with torch.inference_mode():
        found: Tensor = model(ids, images=as_ours(some_images(ids, [[(1, 2)]])))
    return found


def test_what_we_write_opens_in_transformers_with_the_same_weights(written: tuple[Path, Any], tmp_path: Path) -> None:
    path, theirs = written
    write_huggingface(open_checkpoint(path), tmp_path / "out")
    read = transformers.MllamaForConditionalGeneration.from_pretrained(tmp_path / "out")
    expected = theirs.state_dict()
    assert read.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in read.state_dict().items())
    assert open_checkpoint(tmp_path / "out").config == open_checkpoint(path).config
    assert torch.equal(logits(tmp_path / "out"), logits(path))


def test_our_own_format_keeps_the_model(written: tuple[Path, Any], tmp_path: Path) -> None:
    path, _ = written
    write_own(open_checkpoint(path), tmp_path / "out")
    assert open_checkpoint(tmp_path / "out").config == open_checkpoint(path).config
    assert torch.equal(logits(tmp_path / "out"), logits(path))


def test_the_names_that_transformers_5_has_in_memory_are_read(written: tuple[Path, Any], tmp_path: Path) -> None:
    path, theirs = written
    tensors = {name: tensor.contiguous() for name, tensor in theirs.state_dict().items()}
    assert "model.language_model.layers.0.self_attn.q_proj.weight" in tensors
    assert "language_model.model.layers.0.self_attn.q_proj.weight" in load_file(path / "model.safetensors")
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((path / "config.json").read_bytes())
    assert torch.equal(logits(tmp_path), logits(path))


def test_missing_and_unknown_tensors_are_named_as_in_the_file(written: tuple[Path, Any], tmp_path: Path) -> None:
    path, _ = written
    tensors = load_file(path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((path / "config.json").read_bytes())
    gate = tensors.pop("language_model.model.layers.1.cross_attn_attn_gate")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="missing language_model.model.layers.1.cross_attn_attn_gate"):
        logits(tmp_path)
    save_file({**tensors, "vision_model.extra": gate}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"unknown tensor 'vision_model.extra'"):
        logits(tmp_path)


@pytest.mark.parametrize("write_as", [write_gguf, write_meta])
def test_other_formats_refuse_the_model_by_name(written: tuple[Path, Any], tmp_path: Path, write_as: Any) -> None:
    with pytest.raises(InputError, match="cross_attention_layers.* vision"):
        write_as(open_checkpoint(written[0]), tmp_path / "out")


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        (None, "architectures", ["MllamaForCausalLM"], "only MllamaForConditionalGeneration is supported"),
        (None, "text_config", None, "text_config is None; expected an object"),
        (None, "vision_config", [], r"vision_config is \[\]; expected an object"),
        (None, "image_token_index", 308, "image_token is 308; the ids are 0 to 307"),
        (None, "image_token_index", "a", "image_token is 'a'; expected a whole number"),
        (None, "tie_word_embeddings", True, "tie_word_embeddings is true, but an mllama model"),
        (None, "vision_depth", 3, r"vision_depth \(value 3\) is not a known key"),
        ("text_config", "tie_word_embeddings", True, "tied_embeddings is set, which a model with images"),
        ("text_config", "attention_bias", True, "qkv_bias is set, which a model with images"),
        ("text_config", "mlp_bias", True, "ffn_bias is set, which a model with images"),
        ("text_config", "head_dim", 16, "text_config: head_dim is not a key of an mllama model"),
        ("text_config", "sliding_window", 5, "text_config: sliding_window"),
        ("text_config", "cross_attention_layers", [9], "cross_attention_layers has 9"),
        ("text_config", "cross_attention_layers", "all", "cross_attention_layers is 'all'; expected a list"),
        ("text_config", "gates", 2, r"text_config: gates \(value 2\) is not a known key"),
        ("vision_config", "hidden_act", "quick_gelu", "vision_config: hidden_act is 'quick_gelu'"),
        ("vision_config", "vision_output_dim", 64, "vision_output_dim is 64, but .* make it 96"),
        ("vision_config", "image_size", [28, 56], r"image_size is \[28, 56\]; expected a whole number"),
        ("vision_config", "intermediate_layers_indices", [4], "feature_layers has 4"),
        ("vision_config", "supported_aspect_ratios", [[5, 1]], r"aspect_ratios has \[5, 1\]"),
        ("vision_config", "window", 2, r"vision_config: window \(value 2\) is not a known key"),
    ],
)
def test_keys_that_are_not_computed_are_refused_by_name(
    written: tuple[Path, Any], tmp_path: Path, part: str | None, key: str, value: Any, words: str
) -> None:
    path, _ = written
    data = json.loads((path / "config.json").read_text("utf-8"))
    (data if part is None else data[part])[key] = value
    (tmp_path / "config.json").write_text(json.dumps(data), "utf-8")
    (tmp_path / "model.safetensors").symlink_to(path / "model.safetensors")
    with pytest.raises(InputError, match=words) as caught:
        open_huggingface(tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value)


def test_the_colours_of_a_preprocessor_config_are_read_and_written(written: tuple[Path, Any], tmp_path: Path) -> None:
    path, _ = written
    source, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(path, source)
    colours = {"image_mean": [0.5, 0.25, 0.125], "image_std": [0.5, 0.75, 0.25]}
    processor = MllamaImageProcessorPil(size={"height": 28, "width": 28}, **colours)
    processor.save_pretrained(source)
    config = open_checkpoint(source).config
    assert config.vision is not None
    assert (config.vision.mean, config.vision.std) == ((0.5, 0.25, 0.125), (0.5, 0.75, 0.25))
    write_huggingface(open_checkpoint(source), out)
    again = MllamaImageProcessorPil.from_pretrained(out)
    names = ("image_mean", "image_std", "max_image_tiles", "resample", "rescale_factor", "do_pad")
    assert [getattr(again, name) for name in names] == [getattr(processor, name) for name in names]
    assert (again.size.height, again.size.width) == (28, 28)
    assert open_checkpoint(out).config == config


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("size", {"height": 56, "width": 56}, "size is .*, which is not supported; only .*28"),
        ("max_image_tiles", 2, "max_image_tiles is 2, which is not supported; only 4 is"),
        ("resample", 3, "resample is 3, which is not supported"),
        ("do_normalize", False, "do_normalize is False, which is not supported"),
        ("rescale_factor", 1.0, "rescale_factor is 1.0, which is not supported"),
        ("image_std", [1.0, 0.0, 1.0], "no number may be 0"),
        ("image_mean", [0.5], r"mean is \[0.5\]; expected 3 numbers"),
    ],
)
def test_images_that_are_prepared_otherwise_are_refused_by_name(
    written: tuple[Path, Any], tmp_path: Path, key: str, value: Any, words: str
) -> None:
    path, _ = written
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(path / name)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({key: value}), "utf-8")
    with pytest.raises(InputError, match=f"preprocessor_config.json: .*{words}"):
        open_checkpoint(tmp_path)
