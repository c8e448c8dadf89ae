"""What each layer of a model would say: the likeliest next tokens if the model ended after that layer.

The method is the logit lens (nostalgebraist, "interpreting GPT: the logit lens", 2020): the last norm and the output
matrix are applied to the residual stream after each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bpe.errors import InputError
from model.explain.steps import MOST_TOKENS
from model.transformer import Transformer


class Lens(NamedTuple):
    """The likeliest next tokens after each layer, for several tokens of a prompt."""

    first: int
    """The place in the prompt of the first token."""
    ids: Tensor
    """int64 [layers + 1, time, top]: the likeliest ids, likeliest first. Row 0 is the table of embeddings."""
    probabilities: Tensor
    """float32 [layers + 1, time, top]: their probabilities."""
    sizes: Tensor
    """float32 [layers + 1, time]: the root mean square of the residual stream."""


def layer_guesses(
    model: Transformer, ids: Sequence[int], *, top: int = 5, most: int = MOST_TOKENS, n_vocab: int | None = None
) -> Lens:
    """Run a model on a prompt and return what each layer would say after each token.

    Args:
        model: The model.
        ids: The prompt.
        top: The number of likeliest tokens.
        most: The number of tokens at the end of the prompt for which guesses are returned.
        n_vocab: The number of ids that the tokenizer has. Defaults to all ids of the model.

    Raises:
        InputError: When the prompt is empty or too long, or a logit is not finite.
    """
    if not ids:
        raise InputError("the prompt is empty and no token begins a text; give at least one character")
    prompt = torch.tensor([list(ids)], device=model.tok_embeddings.weight.device)
    count = min(most, len(ids))
    found: list[tuple[Tensor, Tensor, Tensor]] = []

    def keep(stream: Tensor) -> None:
        """Judge the stream at once, so that the logits of only one layer are in memory."""
        logits = model.head(model.norm(stream))[:, :n_vocab].float()  # [t, vocabulary]
        if not bool(torch.isfinite(logits).all()):
            raise InputError("the logits contain NaN or infinity; the weights are damaged, or need --dtype float32")
        values, tokens = logits.softmax(-1).topk(min(top, logits.shape[-1]))
        found.append((tokens.cpu(), values.cpu(), stream.float().square().mean(-1).sqrt().cpu()))

    streams: dict[int, Tensor] = {}

    def keep_stream(number: int) -> Callable[..., None]:
        scale = model.config.embedding_multiplier if number == 0 else 1

        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            rows = output[0, -count:]
            streams[number] = rows if scale == 1 else rows * torch.tensor(scale, dtype=output.dtype)

        return hook

    handles = [
        module.register_forward_hook(keep_stream(number))
        for number, module in enumerate((model.tok_embeddings, *model.layers))
    ]
    try:
        with torch.inference_mode():
            model(prompt, last_only=True)
    finally:
        for handle in handles:
            handle.remove()
    with torch.inference_mode():
        stream = streams[0]
        for number in range(model.config.n_layers + 1):
            stream = streams.get(number, stream)  # a layer that reads images is passed over
            keep(stream)
    tokens, values, sizes = (torch.stack(each) for each in zip(*found, strict=True))
    return Lens(len(ids) - count, tokens, values, sizes)
