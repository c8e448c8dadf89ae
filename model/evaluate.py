"""How good a model is: how well it predicts texts, and which of several choices it holds likeliest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Union

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from bpe.bootstrap import BLOCK_BYTES, draw, middle, shown, units
from bpe.corpus import in_batches, records
from bpe.corpus.parts import as_bytes
from bpe.errors import InputError
from bpe.report import Table, percent
from bpe.usage import BATCH_BYTES, Vocabulary
from model.generate import prompt_ids
from model.loss import CHUNK_LOGITS, IGNORED, Evaluation
from model.transformer import Transformer

if TYPE_CHECKING:
    from bpe import Tokenizer

BATCH_TOKENS = 4096  # that go through the model at once
READ_AHEAD = 32  # so many batches are sorted by length, so that little of a batch is padding

Ids = Union["npt.NDArray[np.uint32]", Sequence[int]]
Progress = Callable[[int, int], None]


# --- windows of ids, and what the model makes of them ---


class Window(NamedTuple):
    """Ids that the model reads at once, of which it is to predict the last ones."""

    ids: Ids
    predicted: int
    """How many, at least one; each from all ids before it."""

    @property
    def size(self) -> int:
        """The tokens that the model reads: all but the last."""
        return len(self.ids) - 1


class Scores(NamedTuple):
    """How well each predicted token of a window was predicted."""

    nats: npt.NDArray[np.float64]
    """-log p of the token [predicted]."""
    likeliest: npt.NDArray[np.bool_]
    """Whether the model held no other for likelier [predicted]."""


def windows(ids: Ids, window: int, stride: int) -> Iterator[Window]:
    """A text in windows that predict each of its tokens but the first once.

    The model reads `window` tokens at a time, or all that there are. The first window predicts all that follow its
    tokens, each later one the next `stride`, and the last what is left; so each token is predicted from at least
    window - stride + 1 tokens before it, or from all that there are. A stride of 1 gives each of them the whole window;
    one of `window` is the cheapest, and then the context of some is short.

    >>> [(window.ids, window.predicted) for window in windows([0, 1, 2, 3, 4, 5, 6], window=4, stride=2)]
    [([0, 1, 2, 3, 4], 4), ([2, 3, 4, 5, 6], 2)]
    """
    last = len(ids) - 1
    done = 0
    while done < last:
        end = min(done + (stride if done else window), last)
        yield Window(ids[max(0, end - window) : end + 1], end - done)
        done = end


def check_window(window: int, stride: int, context: int) -> None:
    """Raises InputError where the model cannot read such windows, or would leave tokens out."""
    if not 1 <= window <= context:
        raise InputError(f"the window is {window:,} tokens; give 1 to {context:,}, which the model's context holds")
    if not 1 <= stride <= window:
        raise InputError(f"the stride is {stride:,} tokens; give 1 to {window:,}, the window, so that none is left out")


def token_losses(
    model: Transformer, hidden: Tensor, targets: Tensor, chunk_logits: int = CHUNK_LOGITS
) -> tuple[Tensor, Tensor]:
    """-log p(target) at each position, in nats, and whether no other token is likelier: float [n] and bool [n].

    hidden: what `model.hidden` gave, [n, dim]; targets: ids [n].
    chunk_logits: how many logits exist at a time.

    The softmax is computed in float32, or in float64 where the logits are.
    """
    chunk = max(1, chunk_logits // model.config.vocab_size)
    losses, likeliest = [], []
    for some_hidden, some_targets in zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True):
        logits = model.head(some_hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses.append(F.cross_entropy(logits, some_targets, reduction="none"))
        likeliest.append(logits.argmax(-1) == some_targets)
    return torch.cat(losses), torch.cat(likeliest)


def score(
    model: Transformer, windows: Iterable[Window], batch_tokens: int = BATCH_TOKENS, progress: Progress | None = None
) -> Iterator[Scores]:
    """What the model makes of each window, in their order.

    Windows of about the same length go through the model together, padded behind their ends, where nothing looks.

    batch_tokens: how many tokens at once, padding included; but at least one window.
    progress: called with the tokens and the windows done.

    Raises InputError where the model gives a token no probability that is a number above 0.
    """
    done = count = 0
    for some in _read_ahead(windows, READ_AHEAD * batch_tokens):
        order = sorted(range(len(some)), key=lambda place: -some[place].size)
        scores: dict[int, Scores] = {}
        while order:
            rows = max(1, batch_tokens // max(1, some[order[0]].size))
            batch, order = order[:rows], order[rows:]
            scores.update(zip(batch, _score_batch(model, [some[place] for place in batch]), strict=True))
            done += sum(some[place].size for place in batch)
            count += len(batch)
            if progress is not None:
                progress(done, count)
        yield from (scores[place] for place in range(len(some)))


def _read_ahead(windows: Iterable[Window], size: int) -> Iterator[list[Window]]:
    some: list[Window] = []
    total = 0
    for window in windows:
        some.append(window)
        total += window.size
        if total >= size:
            yield some
            some, total = [], 0
    if some:
        yield some


def _score_batch(model: Transformer, batch: Sequence[Window]) -> Iterator[Scores]:
    device = model.tok_embeddings.weight.device
    # 1. Put the windows side by side; a target stands where the token before it is read.
    inputs = np.zeros((len(batch), max(window.size for window in batch)), np.int64)
    targets = np.full_like(inputs, IGNORED)
    for row, window in enumerate(batch):
        inputs[row, : window.size] = window.ids[:-1]
        targets[row, window.size - window.predicted : window.size] = window.ids[-window.predicted :]
    # 2. Read them all, and make logits only where a token is to be predicted.
    with torch.inference_mode():
        hidden = model.hidden(torch.from_numpy(inputs).to(device))  # [b, t, dim]
        wanted = torch.from_numpy(targets).to(device)
        chosen = wanted != IGNORED
        losses, likeliest = token_losses(model, hidden[chosen], wanted[chosen])  # [n]
        nats, first = losses.double().cpu().numpy(), likeliest.cpu().numpy()
    if not np.isfinite(nats).all():
        raise InputError(
            f"the model gives a token the loss {nats[~np.isfinite(nats)][0]}; its weights are damaged, or too large for"
            " the dtype: try float32"
        )
    # 3. Give each window its own.
    ends = np.cumsum([window.predicted for window in batch]).tolist()
    for start, end in zip([0, *ends], ends, strict=False):
        yield Scores(nats[start:end], first[start:end])


# --- texts ---


@dataclass(frozen=True)
class Text:
    """A text to be predicted."""

    name: str
    documents: Sequence[Ids]
    """Ids of each, at least two, behind the token that begins a text, if the tokenizer has one."""
    bytes: int
    """Of all documents, those that are too short for a prediction included."""


def read_text(tokenizer: Tokenizer, documents: Iterable[bytes], name: str) -> Text:
    """Encode documents, with special tokens as ordinary text.

    Raises InputError where there is nothing to predict.
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
    return Text(name, kept, size)


def evaluate_texts(
    model: Transformer,
    tokenizer: Tokenizer,
    texts: Sequence[Text],
    *,
    window: int,
    stride: int,
    batch_tokens: int = BATCH_TOKENS,
    samples: int = 1000,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Perplexity and bits per byte of each text and of all of them, with 95% intervals by the bootstrap.

    Only what is predicted counts, its nats as its bytes: all text where the tokenizer has a token that begins a text,
    else all but the first token of each document. The nats of whatever special tokens are not counted.

    Args:
        texts: see `read_text`.
        window, stride: in tokens; see `windows`.
        batch_tokens: see `score`. The numbers do not depend on it, but for rounding.
        samples, seed: of the draws of the bootstrap; see `bpe.bootstrap`.
        progress: called with the share of the work that is done.

    Returns:
        "texts": of each its "name", "documents", "tokens" and "bytes" that were predicted, "bytes_left_out", "nats",
        "loss" (nats per token), "perplexity" (its exponential), "bits_per_byte", "likeliest" (the share of tokens that
        the model held likeliest), and "perplexity_interval" and "bits_per_byte_interval", None for a text of fewer than
        10 units, of which "units" and "unit" tell; "all_texts": the same for all texts together.

    Raises:
        InputError: the window does not fit the model or the stride the window, or the model's weights are damaged.
    """
    check_window(window, stride, model.config.max_seq_len)

    def all_windows() -> Iterator[Window]:
        return (each for text in texts for ids in text.documents for each in windows(ids, window, stride))

    total = sum(each.size for each in all_windows())
    told = None if progress is None else lambda done, _: progress(done / total)
    scores = score(model, all_windows(), batch_tokens, told)
    sizes = Vocabulary(tokenizer).sizes
    sums = []
    documents = 0
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
    """Of each block of a document: the document's number, and of the tokens that begin in it the nats, the bytes, how
    many there are and how many were likeliest [5, blocks]."""
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
    drawn = draw(drawn_from, samples, seed)
    return {
        "name": name,
        "documents": len(np.unique(documents)),
        "tokens": evaluation.tokens,
        "bytes": evaluation.bytes,
        "bytes_left_out": size - evaluation.bytes,
        "nats": nats,
        "loss": evaluation.loss,
        "perplexity": float(_perplexity(evaluation.loss)),
        "perplexity_interval": None if drawn is None else middle(_perplexity(drawn[:, 0] / drawn[:, 2])),
        "bits_per_byte": evaluation.bits_per_byte,
        "bits_per_byte_interval": None if drawn is None else middle(drawn[:, 0] / np.log(2) / drawn[:, 1]),
        "likeliest": likeliest / tokens,
        "units": drawn_from.shape[1],
        "unit": unit,
    }


def _perplexity(loss: Any) -> Any:
    return np.exp(np.minimum(loss, 700.0))  # beyond, it is too large for a float


# --- multiple choice ---


class Question(NamedTuple):
    """A question with several choices, each behind the question."""

    choices: Sequence[Window]
    bytes: Sequence[int]
    """Of each choice."""
    answer: int
    """Which choice is right, from 0."""


def read_questions(tokenizer: Tokenizer, source: str, context: int, delimiter: str = " ") -> list[Question]:
    """The questions in files of JSON lines: {"question": text, "choices": [text, ...], "answer": index from 0}.

    A choice is what follows the question and the delimiter: the tokens that the two have together, behind those that
    they share with the tokens of the question alone. Both are ordinary text.

    context: how many tokens the model can read.

    Raises InputError, with file and line, for what is no such question and for one that the context does not hold.
    """
    questions = []
    begin = prompt_ids(tokenizer, "")
    for place, record in records(source):
        question, choices, answer = _question(record, place)
        alone = begin + tokenizer.encode_ordinary(question)
        choice_windows = []
        for number, choice in enumerate(choices):
            ids = begin + tokenizer.encode_ordinary(question + delimiter + choice)
            shared = next((at for at, (a, b) in enumerate(zip(alone, ids, strict=False)) if a != b), len(alone))
            if not 0 < shared < len(ids):
                missing = "token before it" if shared == 0 else "token of its own"
                raise InputError(f"{place}: choice {number} has no {missing}, so nothing can be predicted")
            if len(ids) - 1 > context:
                raise InputError(
                    f"{place}: the question with choice {number} has {len(ids):,} tokens, and the model's context holds"
                    f" {context:,}; shorten it"
                )
            choice_windows.append(Window(ids, len(ids) - shared))
        sizes = [len(as_bytes(choice)) for choice in choices]
        questions.append(Question(choice_windows, sizes, answer))
    if not questions:
        raise InputError(f"{source}: no questions; write one in each line")
    return questions


def _question(record: Mapping[str, Any], place: str) -> tuple[str, list[str], int]:
    question, choices, answer = (record.get(key) for key in ("question", "choices", "answer"))
    if not isinstance(question, str):
        raise InputError(f'{place}: no text under "question"')
    if not isinstance(choices, list) or not all(isinstance(choice, str) and choice for choice in choices):
        raise InputError(f'{place}: "choices" is not a list of texts, none of them empty')
    if len(choices) < 2:
        raise InputError(f'{place}: {len(choices)} in "choices"; there is nothing to choose among fewer than two')
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise InputError(
            f'{place}: "answer" is {answer!r}; it is the index of the right choice, 0 to {len(choices) - 1}'
        )
    return question, choices, answer


def evaluate_choices(
    model: Transformer,
    questions: Sequence[Question],
    name: str,
    *,
    batch_tokens: int = BATCH_TOKENS,
    samples: int = 1000,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """How often the right choice is the likeliest, with 95% intervals by the bootstrap over questions.

    Arguments as those of `evaluate_texts`.

    Returns:
        "name", "questions", "chance" (the accuracy of guessing), and three accuracies with their intervals (None for
        fewer than 10 questions): "accuracy" by the likelihood of a choice, "accuracy_per_token" by that of its tokens
        on average, and "accuracy_per_byte" by that over the bytes of the choice. Of equal choices the first counts.
        "answers": of each question its "log_likelihoods" (nats), "tokens" and "bytes", by choice, and its "answer".
    """
    everything = [window for question in questions for window in question.choices]
    total = sum(window.size for window in everything)
    told = None if progress is None else lambda done, _: progress(done / total)
    scores = score(model, everything, batch_tokens, told)
    answers, right = [], []
    for question in questions:
        likelihoods = [-float(next(scores).nats.sum()) for _ in question.choices]
        tokens = [window.predicted for window in question.choices]
        answers.append(
            {
                "answer": question.answer,
                "log_likelihoods": likelihoods,
                "tokens": tokens,
                "bytes": list(question.bytes),
            }
        )
        norms = np.array([[1] * len(tokens), tokens, question.bytes])
        right.append(np.argmax(np.array(likelihoods) / norms, axis=1) == question.answer)
    counts = np.array(right, np.int64).T  # [raw, per token, per byte; questions]
    drawn = draw(counts, samples, seed)
    found: dict[str, Any] = {
        "name": name,
        "questions": len(questions),
        "chance": float(np.mean([1 / len(question.choices) for question in questions])),
    }
    for row, key in enumerate(ACCURACIES):
        found[key] = int(counts[row].sum()) / len(questions)
        found[f"{key}_interval"] = None if drawn is None else middle(drawn[:, row] / len(questions))
    return found | {"answers": answers}


ACCURACIES = ("accuracy", "accuracy_per_token", "accuracy_per_byte")


# --- tables ---


def texts_table(found: Mapping[str, Any]) -> Table:
    """What `evaluate_texts` found, as people read it."""
    header = ("text", "bytes", "tokens", "bits/byte", "95%", "perplexity", "95%", "likeliest")
    texts = found["texts"]
    rows = [
        [
            row["name"],
            f"{row['bytes']:,}",
            f"{row['tokens']:,}",
            f"{row['bits_per_byte']:.3f}",
            shown(row["bits_per_byte_interval"], ".3f"),
            f"{row['perplexity']:,.2f}",
            shown(row["perplexity_interval"], ",.2f"),
            percent(row["likeliest"]),
        ]
        for row in (texts if len(texts) == 1 else [*texts, found["all_texts"]])
    ]
    return Table("Texts", header, rows)


def choices_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """What `evaluate_choices` found for several files, as people read it."""
    header = ("choices", "questions", "chance", "accuracy", "95%", "per token", "95%", "per byte", "95%")
    rows = []
    for row in found:
        cells = [[percent(row[key]), shown(row[f"{key}_interval"], ".1%")] for key in ACCURACIES]
        rows.append([row["name"], f"{row['questions']:,}", percent(row["chance"]), *cells[0], *cells[1], *cells[2]])
    return Table("Multiple choice", header, rows)
