"""The relatives of Llama with native kernels against transformers, and against `Transformer` in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bpe import InputError
from model import Generation, ModelConfig, NativeModel, Sampling, Transformer
from model.checkpoint import open_checkpoint
from model.checkpoint.assemble import assemble
from model.generation.native import kernels
from model.loading import backend_of
from support.model_families import FAMILIES, write
from support.native_models import close, reference

KERNELS = kernels()
REFUSED = ("llama, dynamic", "phi3, longrope, partial")
NAMES = sorted(set(FAMILIES) - set(REFUSED))
MADE: dict[str, tuple[Path, Any]] = {}


@pytest.fixture
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Return the directory of a model, and the model of transformers."""
    name = request.param
    if name not in MADE:
        path = tmp_path_factory.mktemp("family")
        MADE[name] = path, write(name, path)
    return MADE[name]


def ours_of(path: Path) -> Transformer:
    return assemble(open_checkpoint(path), torch.float32, torch.device("cpu")).eval()


def some_ids(batch: int, count: int, seed: int = 5) -> Tensor:
    return torch.randint(1, 300, (batch, count), generator=torch.Generator().manual_seed(seed))


def texts(model: Any, prompts: list[list[int]], count: int) -> list[list[int]]:
    written: list[list[int]] = [[] for _ in prompts]
    for tokens in Generation(model, prompts, max_tokens=count, sampling=Sampling(temperature=0)):
        for token in tokens:
            written[token.row].append(token.id)
    return written


@torch.inference_mode()
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("pair", NAMES, indirect=True)
def test_logits_are_those_of_transformers(pair: tuple[Path, Any], kernel: str) -> None:
    path, theirs = pair
    native = NativeModel.of(open_checkpoint(path), kernel)
    for count in (1, 20, 75):
        ids = some_ids(2, count)
        expected = theirs(ids).logits
        errors = (native(ids) - expected).abs() / expected.std()
        assert errors.max() < 3e-5
        close(native(ids, last_only=True), expected[:, -1:])


@torch.inference_mode()
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("pair", NAMES, indirect=True)
def test_a_cache_gives_the_logits_of_one_pass(pair: tuple[Path, Any], kernel: str, threads: int) -> None:
    path, _ = pair
    native, ids = NativeModel.of(open_checkpoint(path), kernel, threads), some_ids(2, 60)
    expected, cache = reference(ours_of(path), ids), native.new_cache(2)
    parts = [native(ids[:, :17], cache), native(ids[:, 17:40], cache)]
    parts += [native(ids[:, i : i + 1], cache) for i in range(40, 50)]
    close(torch.cat(parts, dim=1), expected[:, :50])
    cache.truncate(30)
    close(native(ids[:, 30:], cache), expected[:, 30:])


@torch.inference_mode()
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("pair", NAMES, indirect=True)
def test_padding_changes_nothing(pair: tuple[Path, Any], kernel: str) -> None:
    path, _ = pair
    native, ids = NativeModel.of(open_checkpoint(path), kernel), some_ids(3, 22)
    real = torch.ones(3, 22, dtype=torch.bool)
    for row, padding in enumerate((0, 5, 21)):
        real[row, :padding] = False
    positions = (real.cumsum(1) - 1).masked_fill(~real, -1)
    found = native(ids, positions=positions)
    for row in range(3):
        alone = native(ids[row : row + 1, real[row]])
        close(found[row, real[row]], alone[0])


@pytest.mark.parametrize("pair", NAMES, indirect=True)
def test_greedy_texts_are_those_of_the_transformer(pair: tuple[Path, Any]) -> None:
    path, _ = pair
    prompts = [[1, 2, 3], [*range(1, 30)], [9]]
    native = NativeModel.of(open_checkpoint(path))
    assert texts(native, prompts, 30) == texts(ours_of(path), prompts, 30)


@pytest.mark.parametrize("pair", REFUSED, indirect=True)
def test_rotations_that_change_while_a_text_grows_are_refused(pair: tuple[Path, Any]) -> None:
    path, _ = pair
    checkpoint = open_checkpoint(path)
    scaling = checkpoint.config.rope_scaling
    message = f"no kernels for rope_scaling '{scaling}' beyond the original context, rope_original_length 24"
    assert backend_of(checkpoint) == ("torch", f"there are {message}")
    with pytest.raises(InputError, match=message) as caught:
        NativeModel.of(checkpoint)
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match=message):
        NativeModel(checkpoint.config, {})


def test_images_are_refused() -> None:
    config = ModelConfig.preset("llama3.2-11b-vision")
    with pytest.raises(InputError, match="no kernels for images"):
        NativeModel(config, {})
