"""What each layer would say, against the steps that `explain` returns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bpe.errors import InputError
from model import Transformer
from model.checkpoint import open_checkpoint
from model.checkpoint.assemble import assemble
from model.explain.lens import layer_guesses
from model.explain.steps import explain
from support.model_families import write

IDS = [1, 40, 7, 7, 49, 12, 3, 30, 22]


def expected(model: Transformer, ids: list[int], n_vocab: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `explain` says of the last token: guesses [layers + 1, vocabulary] and sizes [layers + 1]."""
    (step,) = (step for step in explain(model, ids, n_vocab=n_vocab) if step.picture == "layers")
    assert step.guesses is not None
    return step.guesses, step.tensor.float().square().mean(-1).sqrt()


def test_guesses_after_each_token_are_those_of_the_text_up_to_it(model: Transformer) -> None:
    lens = layer_guesses(model, IDS, top=3)
    assert lens.first == 0
    assert lens.ids.shape == lens.probabilities.shape == (3, len(IDS), 3)
    for place in range(len(IDS)):
        guesses, sizes = expected(model, IDS[: place + 1])
        values, tokens = guesses.topk(3)
        assert torch.equal(lens.ids[:, place], tokens)
        torch.testing.assert_close(lens.probabilities[:, place], values)
        torch.testing.assert_close(lens.sizes[:, place], sizes)


def test_only_the_last_tokens_are_judged_where_there_are_many(model: Transformer) -> None:
    some = layer_guesses(model, IDS, most=4)
    assert some.first == 5
    assert torch.equal(some.ids, layer_guesses(model, IDS).ids[:, 5:])


def test_rows_of_the_model_without_a_token_are_never_guessed(model: Transformer) -> None:
    lens = layer_guesses(model, IDS, top=50, n_vocab=40)
    assert lens.ids.shape[-1] == 40
    assert lens.ids.max() < 40
    assert torch.allclose(lens.probabilities.sum(-1), torch.ones(3, len(IDS)))


def test_hooks_are_removed(model: Transformer) -> None:
    layer_guesses(model, IDS)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["granite", "gemma2", "llama, biases"])
def test_scaled_embeddings_and_capped_logits_are_judged_as_in_the_steps(tmp_path: Path, name: str) -> None:
    write(name, tmp_path / "a")
    model = assemble(open_checkpoint(tmp_path / "a"), torch.float32, torch.device("cpu"))
    guesses, sizes = expected(model, IDS)
    lens = layer_guesses(model, IDS, top=4)
    values, tokens = guesses.topk(4)
    torch.testing.assert_close(lens.probabilities[:, -1], values)
    assert torch.equal(lens.ids[:, -1], tokens)
    torch.testing.assert_close(lens.sizes[:, -1], sizes)


def test_a_prompt_without_tokens_and_damaged_weights_are_refused(model: Transformer) -> None:
    with pytest.raises(InputError, match="the prompt is empty"):
        layer_guesses(model, [])
    with torch.no_grad():
        model.norm.weight[0] = torch.nan
    with pytest.raises(InputError, match="NaN or infinity"):
        layer_guesses(model, IDS)
