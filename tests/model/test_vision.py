"""Llama 3.2 Vision against transformers: tiny models with random weights and random images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from bpe.errors import InputError
from model import ModelConfig, Transformer
from model.checkpoint import open_checkpoint
from model.checkpoint.assemble import assemble, shell
from model.checkpoint.weights import expected_shapes
from model.view import Images
from model.vision_config import VisionConfig
from support.vision_models import IMAGE, as_ours, some_ids, some_images, write

CASES: dict[str, tuple[list[str], list[list[tuple[int, int]]]]] = {
    "one image, first": (["Iabcdef"], [[(1, 1)]]),
    "one image, text before": (["abcIdef"], [[(2, 2)]]),
    "two images, text between": (["abIcdIef"], [[(1, 2), (3, 1)]]),
    "two images, one after the other": (["aIIbcd"], [[(1, 4), (4, 1)]]),
    "three images": (["IIabIc"], [[(2, 1), (1, 3), (1, 1)]]),
    "a batch": (["Iabcde", "abIcde"], [[(1, 2)], [(2, 2)]]),
    "a batch of one and two images": (["IaIbc", "aIbcd"], [[(1, 1), (4, 1)], [(1, 3)]]),
    "a batch with and without images": (["aIbcd", "abcde"], [[(1, 2)], []]),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Transformer, Path]:
    """Return a model of transformers, ours, and the directory that transformers wrote."""
    path = tmp_path_factory.mktemp("vision")
    theirs = write(path)
    return theirs, ours_of(path), path


def ours_of(path: Path) -> Transformer:
    return assemble(open_checkpoint(path), torch.float32, torch.device("cpu")).eval()


def largest(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


@torch.inference_mode()
@pytest.mark.parametrize("case", CASES)
def test_logits_with_images_are_those_of_transformers(pair: Any, case: str) -> None:
    theirs, ours, _ = pair
    texts, ratios = CASES[case]
    ids = some_ids(*texts)
    images = some_images(ids, ratios)
    found = ours(ids, images=as_ours(images))
    assert largest(found, theirs(ids, **images).logits) < 1e-5
    assert largest(found, ours(ids)) > 0.1  # the images have an effect


@torch.inference_mode()
def test_logits_without_images_are_those_of_transformers(pair: Any) -> None:
    theirs, ours, _ = pair
    ids = some_ids("abcdefgh", "abcdIfgh")
    assert largest(ours(ids), theirs(ids).logits) < 1e-5


@torch.inference_mode()
def test_padding_on_the_left_gives_the_logits_of_transformers(pair: Any) -> None:
    theirs, ours, _ = pair
    ids, padded = some_ids("abIcde", "..Iabc"), torch.ones(2, 6, dtype=torch.long)
    padded[1, :2] = 0
    images, positions = some_images(ids, [[(1, 2)], [(2, 2)]]), padded.cumsum(1) - 1
    expected = theirs(ids, attention_mask=padded, position_ids=positions.clamp(min=0), **images).logits
    found = ours(ids, positions=positions, images=as_ours(images))
    assert largest(found[padded.bool()], expected[padded.bool()]) < 1e-5


@torch.inference_mode()
@pytest.mark.parametrize("case", CASES)
def test_a_cache_read_in_chunks_gives_the_logits_of_one_pass(pair: Any, case: str) -> None:
    _, ours, _ = pair
    texts, ratios = CASES[case]
    ids = some_ids(*texts)
    images = as_ours(some_images(ids, ratios))
    cache = ours.new_cache(len(texts))
    parts = [ours(ids[:, :2], cache, images=images), ours(ids[:, 2:4], cache)]
    parts += [ours(ids[:, place : place + 1], cache) for place in range(4, ids.shape[1])]
    assert largest(torch.cat(parts, 1), ours(ids, images=images)) < 1e-5


@torch.inference_mode()
def test_greedy_generation_is_that_of_transformers(pair: Any) -> None:
    theirs, ours, _ = pair
    ids = some_ids("abIcde", "IabcIe")
    images = some_images(ids, [[(1, 2)], [(2, 2), (1, 1)]])
    expected = theirs.generate(ids, **images, max_new_tokens=12, do_sample=False, eos_token_id=None)
    cache = ours.new_cache(2)
    logits = ours(ids, cache, images=as_ours(images))
    found = [ids]
    for _ in range(12):
        found.append(logits[:, -1:].argmax(-1))
        logits = ours(found[-1], cache)
    assert torch.equal(torch.cat(found, 1), expected)


@torch.inference_mode()
def test_a_cache_that_is_cut_or_reordered_keeps_its_images(pair: Any) -> None:
    _, ours, _ = pair
    ids = some_ids("aIbcde", "abIcde")
    images = as_ours(some_images(ids, [[(1, 2)], [(2, 2)]]))
    cache, whole = ours.new_cache(2), ours(ids, images=images)
    ours(ids, cache, images=images)
    cache.truncate(4)
    cache.select(torch.tensor([1, 0, 1]))
    assert largest(ours(ids[[1, 0, 1], 4:], cache), whole[[1, 0, 1], 4:]) < 1e-5
    cache.truncate(0)
    assert cache.view is None
    assert largest(ours(ids[[1, 0, 1]], cache), ours(ids)[[1, 0, 1]]) < 1e-5


def test_gradients_are_those_of_transformers(pair: Any) -> None:
    theirs, ours, _ = pair
    ids = some_ids("abIcde")
    images = some_images(ids, [[(2, 2)]])
    theirs(ids, **images).logits.square().mean().backward()
    ours(ids, images=as_ours(images)).square().mean().backward()
    expected = theirs.model.vision_model.patch_embedding.weight.grad
    found = ours.vision.patch_embedding.weight.grad  # type: ignore[union-attr]
    assert largest(found, expected.flatten(1)) < 1e-4 * float(expected.abs().max())


@torch.inference_mode()
@pytest.mark.parametrize(
    ("text", "vision"),
    [
        ({"hidden_act": "gelu"}, {"hidden_act": "gelu_pytorch_tanh"}),
        ({}, {"image_size": 30, "norm_eps": 1e-3, "intermediate_layers_indices": [2, 0, -1], "vision_output_dim": 128}),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}, "rms_norm_eps": 1e-3}, {}),
    ],
)
def test_settings_of_both_parts_are_those_of_transformers(
    tmp_path: Path, text: dict[str, Any], vision: dict[str, Any]
) -> None:
    theirs = write(tmp_path, text, vision)
    ids = some_ids("abIcde")
    images = some_images(ids, [[(1, 2)]], size=vision.get("image_size", 28))
    assert largest(ours_of(tmp_path)(ids, images=as_ours(images)), theirs(ids, **images).logits) < 1e-5


@pytest.mark.parametrize(
    ("name", "layers", "dim", "hidden", "heads", "count"),
    [
        ("llama3.2-11b-vision", 40, 4096, 14336, 32, 10_670_220_835),
        ("llama3.2-90b-vision", 100, 8192, 28672, 64, 88_593_355_323),
    ],
)
def test_presets_have_the_parameters_that_transformers_counts(
    name: str, layers: int, dim: int, hidden: int, heads: int, count: int
) -> None:
    text = {"num_hidden_layers": layers, "hidden_size": dim, "intermediate_size": hidden, "num_attention_heads": heads}
    text["cross_attention_layers"] = [*range(3, layers, 5)]  # type: ignore[assignment]
    with torch.device("meta"):
        config = transformers.MllamaConfig(text_config=text, vision_config={"image_size": 560})
        theirs = transformers.MllamaForConditionalGeneration(config)
    ours = ModelConfig.preset(name)
    assert sum(parameter.numel() for parameter in theirs.parameters()) == ours.n_parameters == count


def test_shapes_of_tensors_and_params_json_are_those_of_the_model(pair: Any) -> None:
    config = pair[1].config
    model = shell(config)
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == expected_shapes(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == config.n_parameters
    assert ModelConfig.from_params(config.to_params()) == config
    assert (config.image_token, config.embedding_rows) == (IMAGE, 308)


def test_images_are_refused_where_they_cannot_be_read(pair: Any) -> None:
    _, ours, _ = pair
    ids = some_ids("aIbc")
    images = as_ours(some_images(ids, [[(1, 1)]]))
    llama = Transformer(ModelConfig.preset("nano", vocab_size=512))
    with pytest.raises(InputError, match="the model takes none"):
        llama(ids, images=images)
    cache = ours.new_cache()
    ours(ids, cache)
    with pytest.raises(InputError, match="the cache has tokens; give all images with the first ids"):
        ours(ids, cache, images=images)
    small = Images(images.pixels[..., :20], images.ratios, images.tiles, images.visible)
    with pytest.raises(InputError, match=r"pixels have the shape \[1, 1, 4, 3, 28, 20\]; expected .* 4, 3, 28, 28\]"):
        ours(ids, images=small)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cross_attention_layers": (1,), "vision": None}, "need each other"),
        ({"cross_attention_layers": ()}, "need each other"),
        ({"cross_attention_layers": (7,)}, "cross_attention_layers has 7; the layers are 0 to 2"),
        ({"cross_attention_layers": (0, 1, 2)}, "has all layers"),
        ({"tied_embeddings": True}, "tied_embeddings is set, which a model with images does not have"),
        ({"qk_norm": "head"}, "qk_norm is set, which a model with images does not have"),
        ({"vision": {"image_sizes": 3}}, "vision: unknown 'image_sizes'; known keys are dim,"),
        ({"vision": {"dim": 30}}, r"vision: dim \(30\) is not divisible by n_heads"),
        ({"vision": {"aspect_ratios": [[3, 2]]}}, r"vision: aspect_ratios has \[3, 2\]; .* at most 4 tiles"),
        ({"vision": {"feature_layers": [40]}}, "vision: feature_layers has 40; the layers are 0 to 31"),
        ({"vision": {"feature_layers": []}}, "vision: feature_layers is empty; it must have at least one layer"),
        ({"vision": {"image_token": 600}}, "vision: image_token is 600; the ids are 0 to 519"),
        ({"vision": {"dim": "big"}}, "dim is 'big'; expected a whole number"),
        ({"vision": 3}, "vision is 3; expected an object"),
    ],
)
def test_configurations_that_do_not_fit_are_refused_by_name(fields: dict[str, Any], words: str) -> None:
    given = {"tied_embeddings": False, "vision": VisionConfig(), "cross_attention_layers": (1,), **fields}
    with pytest.raises(InputError, match=words):
        ModelConfig.preset("nano", vocab_size=512, **given)


def test_the_cache_of_a_text_leaves_out_the_layers_that_read_images(pair: Any) -> None:
    config = pair[1].config
    assert config.kv_cache_bytes(2, 10, 4) == pair[1].new_cache(2, capacity=10).bytes == 3 * 2 * 2 * 2 * 10 * 12 * 4
