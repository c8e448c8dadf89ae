"""Evaluate a model on texts: perplexity and bits per byte, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bpe import Tokenizer
from bpe.analysis.bootstrap import BLOCK_BYTES, draw_sums, interval_text, middle_95, units
from bpe.analysis.tables import Table, percent
from bpe.analysis.token_arrays import TokenArrays
from bpe.analysis.usage import BATCH_BYTES
from bpe.corpus import in_batches
from bpe.errors import InputError
from bpe.progress import Progress, shown
from model.evaluation.windows import BATCH_TOKENS, Ids, Scores, Window, check_window, reported, score, windows
from model.generation.completions import prompt_ids
from model.training.loss import Evaluation
from model.transformer import Transformer


@dataclass(frozen=True)
class EvaluationText:
    """A text to evaluate, as ids."""

    name: str
    documents: Sequence[Ids]
    """The ids of each document, at least two, after the token that begins a text if the tokenizer has one."""
    bytes: int
    """The size of all documents in bytes, including documents that are too short to predict anything."""


def read_text(tokenizer: Tokenizer, documents: Iterable[bytes], name: str) -> EvaluationText:
    """Encode documents for evaluation. Special tokens in them are ordinary text.

    Args:
        tokenizer: The tokenizer of the model.
        documents: The documents, UTF-8.
        name: The name of the text in results.

    Raises:
        InputError: When there is nothing to predict.
    """
    begin = np.array(prompt_ids(tokenizer, ""), np.uint32)
    kept: list[Ids] = []
    count = size = 0
    for batch in in_batches(documents, BATCH_BYTES):
        ids, offsets = tokenizer.encode_flat(batch)
        count += len(batch)
        size += sum(map(len, batch))
        begun = (np.concatenate((begin, ids[start:end])) for start, end in zip(offsets, offsets[1:], strict=False))
        kept += [ids for ids in begun if len(ids) > 1]
    if not kept:
        problem = "no text to measure" if not size else "nothing to predict: no document has two tokens"
        raise InputError(f"{name}: {problem} ({count:,} documents, {size:,} bytes)")
    return EvaluationText(name, kept, size)


def evaluate_texts(
    model: Transformer,
    tokenizer: Tokenizer,
    texts: Sequence[EvaluationText],
    *,
    window: int,
    stride: int,
    batch_tokens: int = BATCH_TOKENS,
    samples: int = 1000,
    seed: int = 0,
    progress: Callable[[float], None] | Progress = None,
) -> dict[str, Any]:
    """Measure perplexity and bits per byte of each text and of all texts, with 95% bootstrap intervals.

    Only predicted tokens count, with their nats and their bytes. These are all tokens of the text if the tokenizer has
    a token that begins a text, and all but the first token of each document otherwise.

    Args:
        model: The model.
        tokenizer: The tokenizer of the model.
        texts: The texts, from `read_text`.
        window: The number of tokens that the model reads at a time; see `windows`.
        stride: The number of tokens that a window predicts; see `windows`.
        batch_tokens: The number of tokens in a batch; see `score`. Results depend on it only by rounding.
        samples: The number of bootstrap samples; see `bpe.analysis.bootstrap`.
        seed: The seed of the bootstrap.
        progress: True shows the progress on a terminal or in a notebook, and a stream there. A callback is called with
            the finished share of the work, from 0 to 1.

    Returns:
        A dictionary. "texts" has for each text "name", "documents", "tokens" and "bytes" (predicted), "bytes_left_out",
        "nats", "loss" (nats per token), "perplexity" (the exponential of the loss), "bits_per_byte", "likeliest" (the
        share of tokens that were the model's likeliest), "perplexity_interval" and "bits_per_byte_interval" (None for
        fewer than 10 units), and "units" and "unit", the number and kind of the resampled units. "all_texts" has the
        same for all texts together.

    Raises:
        InputError: When the window exceeds the context or the stride exceeds the window, or a loss is not finite.
    """
    check_window(window, stride, model.config.max_seq_len)

    def all_windows() -> Iterator[Window]:
        return (each for text in texts for ids in text.documents for each in windows(ids, window, stride))

    total = sum(each.size for each in all_windows())
    names = ", ".join(text.name for text in texts)
    sizes = TokenArrays(tokenizer).sizes
    sums = []
    documents = 0
    with shown(progress), reported(f"evaluating {names}", total, progress) as told:
        scores = score(model, all_windows(), batch_tokens, told)
        for text in texts:
            blocks = []
            for number, ids in enumerate(text.documents, documents):
                parts = [next(scores) for _ in windows(ids, window, stride)]
                blocks.append(_blocks(number, sizes[np.asarray(ids[1:])], parts))
            documents += len(text.documents)
            sums.append(np.concatenate(blocks, axis=1))
    rows = [_measures(text.name, text.bytes, sum_, samples, seed) for text, sum_ in zip(texts, sums, strict=True)]
    size = sum(text.bytes for text in texts)
    return {"texts": rows, "all_texts": _measures("all texts", size, np.concatenate(sums, axis=1), samples, seed)}


def _blocks(document: int, sizes: npt.NDArray[np.int64], parts: Sequence[Scores]) -> npt.NDArray[np.float64]:
    """Sum the scores of a document by block.

    Returns:
        [5, blocks]: the number of the document, and of the tokens that begin in the block the nats, the bytes, the
        count, and the count of likeliest tokens.
    """
    block = (np.cumsum(sizes) - sizes) // BLOCK_BYTES
    nats, likeliest = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    columns = [np.bincount(block, weights) for weights in (nats, sizes, np.ones(len(nats)), likeliest)]
    found = np.stack([np.full(len(columns[0]), float(document)), *columns])
    return found[:, found[3] > 0]  # a token may be longer than a block


def _measures(name: str, size: int, blocks: npt.NDArray[np.float64], samples: int, seed: int) -> dict[str, Any]:
    documents = blocks[0].astype(np.int64)
    drawn_from, unit = units(documents, blocks[1:])
    nats, predicted, tokens, likeliest = blocks[1:].sum(axis=1).tolist()
    evaluation = Evaluation(nats, int(tokens), int(predicted))
    drawn = draw_sums(drawn_from, samples, seed)
    return {
        "name": name,
        "documents": len(np.unique(documents)),
        "tokens": evaluation.tokens,
        "bytes": evaluation.bytes,
        "bytes_left_out": size - evaluation.bytes,
        "nats": nats,
        "loss": evaluation.loss,
        "perplexity": float(_perplexity(evaluation.loss)),
        "perplexity_interval": None if drawn is None else middle_95(_perplexity(drawn[:, 0] / drawn[:, 2])),
        "bits_per_byte": evaluation.bits_per_byte,
        "bits_per_byte_interval": None if drawn is None else middle_95(drawn[:, 0] / np.log(2) / drawn[:, 1]),
        "likeliest": likeliest / tokens,
        "units": drawn_from.shape[1],
        "unit": unit,
    }


def _perplexity(loss: Any) -> Any:
    return np.exp(np.minimum(loss, 700.0))  # beyond 700, the result overflows a float


def texts_table(found: Mapping[str, Any]) -> Table:
    """Return the results of `evaluate_texts` as a table."""
    header = ("text", "bytes", "tokens", "bits/byte", "95%", "perplexity", "95%", "likeliest")
    texts = found["texts"]
    rows = [
        [
            row["name"],
            f"{row['bytes']:,}",
            f"{row['tokens']:,}",
            f"{row['bits_per_byte']:.3f}",
            interval_text(row["bits_per_byte_interval"], ".3f"),
            f"{row['perplexity']:,.2f}",
            interval_text(row["perplexity_interval"], ",.2f"),
            percent(row["likeliest"]),
        ]
        for row in (texts if len(texts) == 1 else [*texts, found["all_texts"]])
    ]
    return Table("Texts", header, rows, importance=(3, 5, 4, 7, 2, 1, 6))
