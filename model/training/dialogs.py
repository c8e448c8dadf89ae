"""Dialogs and preferences to train on: from JSON lines to ids, and to batches in which texts do not see each other."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bpe import Tokenizer
from bpe.chat import ChatFormat
from bpe.corpus import NotJsonError, documents, records
from bpe.errors import InputError
from model.training.loss import IGNORED, TokenBatch
from model.training.records import Notes, Reader, Record

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Dialog:
    """A dialog as the model reads it.

    Attributes:
        place: File and line, such as "dialogs.jsonl: line 3".
        ids: The token ids.
        written: For each id, whether it is learned, which is where the assistant wrote it.
        whole: Whether nothing was cut off.
    """

    place: str
    ids: list[int]
    written: list[bool]
    whole: bool = True

    def __len__(self) -> int:
        """Return the number of tokens that the model reads: all but the last one, which no token follows."""
        return len(self.ids) - 1

    @property
    def texts(self) -> tuple[Dialog, ...]:
        """The texts that the model reads: the dialog itself."""
        return (self,)


@dataclass(frozen=True)
class Pair:
    """Two dialogs with the same beginning, of which the first is preferred. Only tokens where they differ are learned.

    Attributes:
        chosen: The preferred dialog.
        rejected: The other dialog.
    """

    chosen: Dialog
    rejected: Dialog

    def __len__(self) -> int:
        """Return the number of tokens that the model reads."""
        return len(self.chosen) + len(self.rejected)

    @property
    def place(self) -> str:
        """File and line."""
        return self.chosen.place

    @property
    def whole(self) -> bool:
        """Whether nothing was cut off."""
        return self.chosen.whole and self.rejected.whole

    @property
    def texts(self) -> tuple[Dialog, ...]:
        """The texts that the model reads: the chosen dialog, then the rejected one."""
        return (self.chosen, self.rejected)


@dataclass(frozen=True)
class Reading:
    """How to read examples.

    Attributes:
        length: Highest number of tokens that the model reads of a dialog. A longer dialog is cut off at its end, so
            each of the remaining tokens still follows the same tokens.
        learn_end: Whether the token that ends an answer is learned. None: where the chat format writes one. True: also
            after the last answer of a dialog without one.
        end_id: The token that `learn_end` puts after an answer.
        field: Key or column of plain texts in .jsonl and Parquet files.
        separator: String between plain texts within a file; None if each file is one text.
        notes: Where to count what was noticed.
    """

    length: int
    learn_end: bool | None = None
    end_id: int | None = None
    field: str = "text"
    separator: str | None = None
    notes: Notes = dataclass_field(default_factory=Notes)


def read_dialogs(sources: Iterable[PathLike], chat_format: ChatFormat, how: Reading | int) -> list[Dialog]:
    """Read dialogs from JSONL files, or from JSON files that hold a list.

    Each line is a record in one of these forms, each with an optional "tools":

    - `{"messages": [{"role": ..., "content": ...}, ...]}`; an answer with `"weight": 0` is read, but not learned;
    - `{"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}` (ShareGPT);
    - `{"prompt": TEXT or MESSAGES, "completion": TEXT or MESSAGES}`, of which only the completion is learned;
    - `{"instruction": TEXT, "input": TEXT, "output": TEXT}` (Alpaca), where the input may be missing.

    Args:
        sources: Paths of the files, which may be compressed.
        chat_format: Encodes dialogs.
        how: How to read them; a number stands for `Reading(number)`.

    Raises:
        InputError: When a line is not a JSON object, or has no valid messages, or has nothing to learn, or a key that
            would change what is learned and is not supported. The error names file, line and message.
    """
    how = how if isinstance(how, Reading) else Reading(how)
    reader = Reader(chat_format, how.notes)
    dialogs = []
    for source in sources:
        for place, record in _records(source):
            dialog = _encoded(place, reader.dialog(place, record), chat_format, how)
            _require_answer(dialog, how.length)
            dialogs.append(dialog)
    return dialogs


def read_texts(sources: Iterable[PathLike], tokenizer: Tokenizer, how: Reading) -> list[Dialog]:
    """Read plain texts to learn each token of, as `bpe.corpus.documents` reads them.

    A text begins with what its tokenizer puts in front of texts, and ends with its end token unless `how.learn_end` is
    False. A text longer than `how.length` is read in parts, so that each token is learned once.

    Args:
        sources: Paths of text files, .jsonl or Parquet files, or directories.
        tokenizer: Encodes the texts.
        how: How to read them.

    Raises:
        InputError: When a file cannot be read, or an end token is wanted that the tokenizer does not have.
    """
    if how.learn_end and how.end_id is None:
        raise InputError("the tokenizer has no token that ends a text; leave out learn_end (--learn-end)")
    after = [] if how.learn_end is False or how.end_id is None else [how.end_id]
    texts = []
    for source in sources:
        for number, document in enumerate(documents([source], separator=how.separator, field=how.field), 1):
            body = tokenizer.encode_ordinary(bytes(document).decode("utf-8", "replace"))
            ids = [*tokenizer.prefix_ids, *body, *after] if body else []
            for begin in range(0, len(ids) - 1, how.length):
                part = ids[begin : begin + how.length + 1]
                texts.append(Dialog(f"{source}: text {number}", part, [False] + [True] * (len(part) - 1)))
    return texts


def read_pairs(sources: Iterable[PathLike], chat_format: ChatFormat, how: Reading | int) -> list[Pair]:
    """Read preferences from JSONL files, or from JSON files that hold a list.

    Each line is `{"chosen": MESSAGES, "rejected": MESSAGES}`, two dialogs with the same beginning. The beginning may
    stand in "prompt" instead, or as well. A string in place of messages is a message of the user in "prompt", and of
    the assistant elsewhere. Strings such as "Human: ... Assistant: ..." of Anthropic's HH data are whole dialogs.

    Args:
        sources: Paths of the files, which may be compressed.
        chat_format: Encodes dialogs.
        how: How to read them (see `read_dialogs`).

    Raises:
        InputError: As `read_dialogs` does, and when the two dialogs do not differ.
    """
    how = how if isinstance(how, Reading) else Reading(how)
    length, reader = how.length, Reader(chat_format, how.notes)
    pairs = []
    for source in sources:
        for place, record in _records(source):
            chosen, rejected = (
                _encoded(place, dialog, chat_format, how) for dialog in reader.preference(place, record)
            )
            shared = len(os.path.commonprefix([chosen.ids, rejected.ids]))
            if shared == max(len(chosen.ids), len(rejected.ids)):
                where = "" if chosen.whole else f" in their first {length} tokens (sequence_length)"
                raise InputError(f"{place}: chosen and rejected are the same{where}")
            chosen, rejected = (_learned_from(dialog, shared) for dialog in (chosen, rejected))
            for dialog in (chosen, rejected):
                _require_answer(dialog, length)
            pairs.append(Pair(chosen, rejected))
    return pairs


def _records(source: PathLike) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the records of a file of dialogs, each with its place."""
    try:
        yield from records(source)
    except NotJsonError as error:
        raise InputError(f"{error}; plain texts are trained on with --text (text=True)") from error


def _encoded(place: str, record: Record, chat_format: ChatFormat, how: Reading) -> Dialog:
    messages = record.messages
    try:
        chat_format.check(messages)
        answers = {index for index, message in enumerate(messages) if message["role"] == "assistant"}
        learned = None if record.learned == answers else record.learned
        ids, written = chat_format.encode_with_mask(messages, record.tools, learned)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    if not answers:
        raise InputError(f"{place}: no assistant message, so there is nothing to learn")
    if not record.learned:
        raise InputError(f"{place}: no answer is to be learned (their weight is 0); remove the record")
    _mark_ends(place, ids, written, chat_format.end_ids, how)
    return Dialog(place, ids[: how.length + 1], written[: how.length + 1], len(ids) <= how.length + 1)


_GAP = 2  # tokens, such as white space, that a template may write between an answer and the token that ends it


def _mark_ends(place: str, ids: list[int], written: list[bool], ends: frozenset[int], how: Reading) -> None:
    """Decide, in place, whether the tokens that end the answers are learned, and count dialogs without such tokens."""
    how.notes.dialogs += 1
    stops = [n for n in range(1, len(ids) + 1) if written[n - 1] and (n == len(ids) or not written[n])]
    no_end = left_out = False
    for stop in stops:
        if ids[stop - 1] in ends:
            written[stop - 1] = how.learn_end is not False
            continue
        end = next((n for n in range(stop, min(stop + _GAP + 1, len(ids))) if ids[n] in ends), None)
        if end is None:
            no_end = True
        else:
            left_out = True
            if how.learn_end is not False:
                written[stop : end + 1] = [True] * (end + 1 - stop)
    if no_end and how.learn_end and stops[-1] >= len(ids) - _GAP and not any(id in ends for id in ids[stops[-1] - 1 :]):
        if how.end_id is None:
            raise InputError(
                f"{place}: the chat template writes no token that ends an answer, and the tokenizer has none; add one"
                " to the tokenizer, or leave out learn_end (--learn-end)"
            )
        del ids[stops[-1] :], written[stops[-1] :]
        ids.append(how.end_id)
        written.append(True)
    how.notes.no_end += no_end
    how.notes.left_out += left_out


def _learned_from(dialog: Dialog, begin: int) -> Dialog:
    written = [index >= begin and each for index, each in enumerate(dialog.written)]
    return Dialog(dialog.place, dialog.ids, written, dialog.whole)


def _require_answer(dialog: Dialog, length: int) -> None:
    if any(dialog.written[1:]):
        return
    if dialog.whole:
        raise InputError(
            f"{dialog.place}: the chat format leaves out the assistant's text, so there is nothing to learn"
        )
    raise InputError(
        f"{dialog.place}: the first {length} tokens hold no text by the assistant, so there is nothing to learn; "
        "increase sequence_length, or remove the dialog"
    )


def examples_fingerprint(examples: Iterable[Dialog | Pair]) -> str:
    """Return a hash of the ids and of which ids are learned, in hexadecimal."""
    digest = hashlib.sha256()
    for example in examples:
        for dialog in example.texts:
            digest.update(len(dialog.ids).to_bytes(8, "little"))
            digest.update(np.array(dialog.ids, np.int64).tobytes() + bytes(dialog.written))
    return digest.hexdigest()[:16]


class Rows:
    """Examples in random order, packed into rows: `rows[number]` is a list of their indices.

    Every epoch reads each example once. A row follows from its number and the seed alone, so a resumed run needs no
    random state. Rows have no end.
    """

    def __init__(self, lengths: Sequence[int], row_length: int, seed: int) -> None:
        """Take the sizes.

        Args:
            lengths: Number of tokens in each example.
            row_length: Number of tokens in a row. A longer example has a row to itself.
            seed: Seed of the order.

        Raises:
            InputError: When there is no example.
        """
        if not lengths:
            raise InputError("there are no examples to train on")
        self._lengths, self._row_length, self._seed = lengths, row_length, seed
        self._first = [0]  # number of the first row of each epoch
        self._kept: dict[int, list[list[int]]] = {}

    def __getitem__(self, number: int) -> list[int]:
        epoch = int(np.searchsorted(self._first, number, side="right")) - 1
        while number >= self._first[-1]:
            epoch = len(self._first) - 1
            self._first.append(self._first[-1] + len(self._epoch(epoch)))
        return self._epoch(epoch)[number - self._first[epoch]]

    def count(self, epochs: float) -> int:
        """Return the number of rows in a number of epochs, which need not be whole."""
        whole = int(epochs)
        while len(self._first) <= whole + 1:
            self[self._first[-1]]
        return self._first[whole] + round((epochs - whole) * (self._first[whole + 1] - self._first[whole]))

    def _epoch(self, epoch: int) -> list[list[int]]:
        if epoch not in self._kept:
            self._kept = {number: rows for number, rows in self._kept.items() if number == epoch - 1}
            order = np.random.default_rng((self._seed, epoch)).permutation(len(self._lengths))
            self._kept[epoch] = in_rows(order, self._lengths, self._row_length)
        return self._kept[epoch]


def in_rows(order: Iterable[Any], lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Cut indices, in the order given, into rows of at most row_length tokens, or of one longer example."""
    rows: list[list[int]] = []
    room = -1
    for index in map(int, order):
        if lengths[index] > room:
            rows.append([])
            room = row_length
        rows[-1].append(index)
        room -= lengths[index]
    return rows


def batch_of(rows: Sequence[Sequence[Dialog | Pair]], packed: bool = True) -> TokenBatch:
    """Build a batch of examples, in which no text sees another.

    Args:
        rows: The examples of each row.
        packed: Put the examples of a row into one row of the batch, where positions start over with each text.
            Otherwise each text has a row of its own. Both give the same loss. Short rows are padded.
    """
    texts = [[_as_tensor(dialog) for example in row for dialog in example.texts] for row in rows]
    filled = [torch.cat(row, dim=1) for row in texts] if packed else [text for row in texts for text in row]
    longest = max(row.shape[1] for row in filled)
    batch = torch.tensor((0, IGNORED, -1))[:, None, None].repeat(1, len(filled), longest)
    for number, row in enumerate(filled):
        batch[:, number, : row.shape[1]] = row
    inputs, targets, positions = batch
    return TokenBatch(inputs, targets, positions if packed else None)


def _as_tensor(dialog: Dialog) -> Tensor:
    """Return inputs, targets and positions: int64 [3, tokens]."""
    ids = torch.tensor(dialog.ids)
    written = torch.tensor(dialog.written)
    return torch.stack((ids[:-1], ids[1:].masked_fill(~written[1:], IGNORED), torch.arange(len(dialog))))


def texts_of(batch: TokenBatch) -> list[tuple[int, slice]]:
    """Return the row and the columns of each text in a batch by `batch_of`, in its order.

    Columns may include padding at their end.
    """
    rows, columns = batch.inputs.shape
    if batch.positions is None:
        return [(row, slice(0, columns)) for row in range(rows)]
    places = torch.nonzero(batch.positions == 0).tolist()
    following = [*places[1:], [rows, 0]]
    return [
        (row, slice(begin, end if row == next_row else columns))
        for (row, begin), (next_row, end) in zip(places, following, strict=True)
    ]
