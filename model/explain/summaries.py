"""What a page shows of a forward pass: the results of `explain` as JSON and bytes of bounded size."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bpe.display import visible
from bpe.errors import InputError
from bpe.tokenizer import Tokenizer
from model.explain.lens import layer_guesses
from model.explain.steps import ForwardStep, attention_maps
from model.transformer import Transformer

TOP = 5  # likeliest tokens after each layer
NEXT = 20  # likeliest tokens after the last layer
MOST_CELLS = 2048  # layers times tokens for which the likeliest tokens are computed: each costs a row of the vocabulary
MOST_MAP_NUMBERS = 1 << 22  # numbers in the maps of all heads: 4 MB
BINS = 64  # numbers shown of a row


def shown_tokens(tokenizer: Tokenizer, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Return the id, the label, the bytes (in hexadecimal) of each token, and whether it is a special token.

    Rows of the model that have no token are labelled <ID>.
    """
    specials = set(tokenizer.vocabulary.special_tokens.values())
    tokens = []
    for id in ids:
        try:
            content = tokenizer.shown_tokens([id])[0]
        except (KeyError, IndexError, OverflowError):
            tokens.append({"id": id, "label": f"<{id}>", "bytes": "", "special": False})
            continue
        label = visible(content).replace(" ", "·")
        tokens.append({"id": id, "label": label, "bytes": content.hex(), "special": id in specials})
    return tokens


def text_summary(model: Transformer, tokenizer: Tokenizer, ids: Sequence[int]) -> dict[str, Any]:
    """Return the tokens of a prompt, what each layer would say after each token, and the likeliest next tokens.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        ids: The prompt.

    Returns:
        A JSON object. "lens" has a row for the table of embeddings and for each layer, and in it a cell for each token
        from "first" on: a list of pairs of an index in "vocabulary" and a probability. "sizes" has the root mean square
        of the residual stream of each cell. "next" lists the likeliest next tokens after each token from "first" on.
    """
    rows = model.config.n_layers + 1
    lens = layer_guesses(model, ids, top=NEXT, most=max(1, MOST_CELLS // rows), n_vocab=tokenizer.n_vocab)
    guessed = sorted({*lens.ids[:, :, :TOP].flatten().tolist(), *lens.ids[-1].flatten().tolist()})
    places = {id: place for place, id in enumerate(guessed)}

    def pairs(ids: Tensor, probabilities: Tensor) -> list[list[float]]:
        values = zip(ids.tolist(), probabilities.tolist(), strict=True)
        return [[places[id], _rounded(probability)] for id, probability in values]

    cells = [
        [pairs(*cell) for cell in zip(lens.ids[row, :, :TOP], lens.probabilities[row, :, :TOP], strict=True)]
        for row in range(rows)
    ]
    return {
        "tokens": shown_tokens(tokenizer, ids),
        "first": lens.first,
        "vocabulary": shown_tokens(tokenizer, guessed),
        "lens": cells,
        "sizes": [[_rounded(size) for size in row] for row in lens.sizes.tolist()],
        "next": [pairs(*each) for each in zip(lens.ids[-1], lens.probabilities[-1], strict=True)],
    }


def all_maps(model: Transformer, ids: Sequence[int]) -> bytes:
    """Return the attention of all heads, coarsely.

    Returns:
        Little-endian: the number of layers, of heads and of tokens; the numbers of the layers, 32 bits each; and for
        each layer, head and token that attends, the share of each token that is attended to, as 255 times its square
        root, in 8 bits. Layers that read images are left out.

    Raises:
        InputError: When the maps would be too large.
    """
    config, time = model.config, len(ids)
    layers = [layer for layer in range(config.n_layers) if layer not in config.cross_attention_layers]
    count = len(layers) * config.n_heads
    longest = math.isqrt(MOST_MAP_NUMBERS // count)
    if time > longest:
        raise InputError(
            f"the text has {time:,} tokens; the maps of all {count:,} heads fit up to {longest:,}; choose a layer, or"
            " shorten the text"
        )
    shares = attention_maps(model, ids, layers=layers, heads=range(config.n_heads))
    coarse = (255 * shares.clamp(0, 1).sqrt()).round().to(torch.uint8)
    head = struct.pack(f"<3I{len(layers)}I", len(layers), config.n_heads, time, *layers)
    return head + coarse.numpy().tobytes()


def layer_maps(model: Transformer, ids: Sequence[int], layer: int) -> bytes:
    """Return the attention of the heads of a layer.

    Returns:
        Little-endian: the number of heads and of tokens, 32 bits each; and for each head and token that attends, the
        share of each token that is attended to, float32.

    Raises:
        InputError: When there is no such layer, or it reads images.
    """
    shares = attention_maps(model, ids, layers=[layer], heads=range(model.config.n_heads))[0]
    return struct.pack("<2I", len(shares), len(ids)) + shares.numpy().astype("<f4").tobytes()


def step_summary(step: ForwardStep) -> dict[str, Any]:
    """Return a step as a JSON object: its description, its extremes, and at most `BINS` numbers of each row.

    A number of a row stands for a part of the row: it is the number farthest from zero in it. The rows of steps with a
    column for each token have all their numbers. -inf is null.
    """
    numbers = step.tensor.float().cpu()
    numbers = numbers[:, None] if numbers.dim() < 2 else numbers
    finite = numbers[torch.isfinite(numbers)]
    found: dict[str, Any] = {
        "title": step.title,
        "text": step.text,
        "axes": step.axes.split(" x "),
        "shape": list(step.tensor.shape),
        "dtype": step.dtype,
        "picture": step.picture,
    }
    if step.picture == "ids":
        return found
    found |= {"min": _rounded(finite.min().item()), "max": _rounded(finite.max().item())}
    found["mean"] = _rounded(finite.mean().item())
    is_square = step.axes == "time x time"
    values = numbers.numpy() if is_square else binned(numbers).numpy()
    found["rows"] = [[None if math.isinf(value) else _rounded(value) for value in row] for row in values.tolist()]
    return found


def binned(numbers: Tensor) -> Tensor:
    """Return the number farthest from zero in each of at most `BINS` parts of each row: [rows, parts]."""
    bounds = [part[0] for part in np.array_split(np.arange(numbers.shape[1]), min(BINS, numbers.shape[1]))]
    parts = numbers.tensor_split([int(bound) for bound in bounds[1:]], dim=1)
    return torch.stack([part.gather(1, part.abs().argmax(1, keepdim=True))[:, 0] for part in parts], dim=1)


def row_numbers(step: ForwardStep, row: int) -> bytes:
    """Return all numbers of a row of a step, little-endian float32.

    Raises:
        InputError: When there is no such row.
    """
    if not 0 <= row < len(step.tensor) or step.picture == "ids":
        raise InputError(f"row: {step.title} has no row {row} of numbers; its shape is {step.shape}")
    return step.tensor[row].float().cpu().numpy().astype("<f4").tobytes()


def _rounded(value: float) -> float:
    """Round to four significant digits, which is what a page shows."""
    return float(f"{value:.4g}")
