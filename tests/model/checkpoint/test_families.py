"""The relatives of Llama against transformers: tiny models with random weights, written by transformers and by us."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bpe.errors import InputError
from model import Transformer
from model.checkpoint import open_checkpoint
from model.checkpoint.assemble import assemble
from support.model_families import FAMILIES, write

NAMES = sorted(FAMILIES)
CHANGES_WITH_LENGTH = ("llama, dynamic", "phi3, longrope, partial")
"""Models whose rotations depend on the length of the text, so that a cache gives other numbers than one pass."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Return a place for the models that were made in this module, by name."""
    return {}


@pytest.fixture
def pair(request: pytest.FixtureRequest, made: dict[str, tuple[Path, Any]], tmp_path_factory: Any) -> Any:
    """Return the directory of a model, the model of transformers, and ours."""
    name = request.param
    if name not in made:
        path = tmp_path_factory.mktemp("family")
        made[name] = path, write(name, path)
    path, theirs = made[name]
    return path, theirs, ours_of(path)


def ours_of(path: Path) -> Transformer:
    return assemble(open_checkpoint(path), torch.float32, torch.device("cpu")).eval()


def some_ids(batch: int, count: int) -> Tensor:
    return torch.randint(1, 300, (batch, count), generator=torch.Generator().manual_seed(5))


def largest(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


@torch.inference_mode()
@pytest.mark.parametrize("pair", NAMES, indirect=True)
def test_logits_are_those_of_transformers(pair: Any) -> None:
    _, theirs, ours = pair
    for count in (1, 20, 40):
        ids = some_ids(2, count)
        assert largest(ours(ids), theirs(ids).logits) < 1e-5


@torch.inference_mode()
@pytest.mark.parametrize("pair", NAMES, indirect=True)
def test_padding_on_the_left_changes_nothing(pair: Any) -> None:
    _, theirs, ours = pair
    ids, mask = some_ids(3, 22), torch.ones(3, 22, dtype=torch.long)
    for row, padding in enumerate((0, 5, 21)):
        mask[row, :padding] = 0
    positions = mask.cumsum(1) - 1
    expected = theirs(ids, attention_mask=mask, position_ids=positions.clamp(min=0)).logits
    found = ours(ids, positions=positions)
    assert largest(found[mask.bool()], expected[mask.bool()]) < 1e-5


@torch.inference_mode()
@pytest.mark.parametrize("pair", [name for name in NAMES if name not in CHANGES_WITH_LENGTH], indirect=True)
def test_a_cache_gives_the_logits_of_one_pass(pair: Any) -> None:
    _, _, ours = pair
    ids, cache = some_ids(2, 40), ours.new_cache(2)
    parts = [
        ours(ids[:, :17], cache),
        ours(ids[:, 17:30], cache),
        *(ours(ids[:, i : i + 1], cache) for i in range(30, 40)),
    ]
    assert largest(torch.cat(parts, dim=1), ours(ids)) < 2e-5


@pytest.mark.parametrize("pair", NAMES, indirect=True)
def test_gradients_are_those_of_transformers(pair: Any) -> None:
    _, theirs, ours = pair
    ids = some_ids(2, 20)
    theirs.zero_grad()
    theirs(ids).logits.square().mean().backward()
    ours(ids).square().mean().backward()
    expected = theirs.get_input_embeddings().weight.grad
    assert largest(ours.tok_embeddings.weight.grad, expected) < 1e-4 * float(expected.abs().max())


def test_a_missing_joined_matrix_has_its_name_in_the_file(tmp_path: Path) -> None:
    write("phi3", tmp_path)
    file, name = tmp_path / "model.safetensors", "model.layers.2.self_attn.qkv_proj.weight"
    save_file({key: tensor for key, tensor in load_file(file).items() if key != name}, file)
    with pytest.raises(InputError, match=f"missing {name}; the file is incomplete"):
        ours_of(tmp_path)
