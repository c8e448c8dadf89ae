"""Dialogs and preferences to learn from: JSON lines to ids, and to batches in which each is read on its own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bpe.chat import ChatFormat, Message
from bpe.corpus import records
from bpe.errors import InputError
from model.training.loss import IGNORED, Batch

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Dialog:
    """A dialog as the model reads it.

    place: where it stands, such as "dialogs.jsonl: line 3". ids: of all of it. written: for each id, whether it is
    learned: the assistant wrote it. whole: whether nothing was cut off.
    """

    place: str
    ids: list[int]
    written: list[bool]
    whole: bool = True

    def __len__(self) -> int:
        """How many tokens the model reads: all but the last, which nothing follows."""
        return len(self.ids) - 1

    @property
    def texts(self) -> tuple[Dialog, ...]:
        """What is read: the dialog itself."""
        return (self,)


@dataclass(frozen=True)
class Pair:
    """Two dialogs with the same beginning, of which the first is preferred; learned is only where they differ."""

    chosen: Dialog
    rejected: Dialog

    def __len__(self) -> int:
        return len(self.chosen) + len(self.rejected)

    @property
    def place(self) -> str:
        """Where it stands."""
        return self.chosen.place

    @property
    def whole(self) -> bool:
        """Whether nothing was cut off."""
        return self.chosen.whole and self.rejected.whole

    @property
    def texts(self) -> tuple[Dialog, ...]:
        """What is read: both."""
        return (self.chosen, self.rejected)


def read_dialogs(sources: Iterable[PathLike], chat_format: ChatFormat, length: int) -> list[Dialog]:
    """The dialogs in the lines of files: {"messages": [{"role": ..., "content": ...}, ...]}, and "tools" if there are.

    length: the most tokens that the model reads of a dialog; a longer one is cut at its end, so that what is left
        follows upon all that it followed upon before.

    Raises InputError for a line that is no JSON object, has no such messages, or nothing that could be learned; file,
    line and message are named.
    """
    dialogs = []
    for source in sources:
        for place, record in records(source):
            messages = _messages(place, record, "messages")
            dialog = _encoded(place, messages, record.get("tools"), chat_format, length)
            _require_answer(dialog, length)
            dialogs.append(dialog)
    return dialogs


def read_pairs(sources: Iterable[PathLike], chat_format: ChatFormat, length: int) -> list[Pair]:
    """The preferences in the lines of files: {"chosen": MESSAGES, "rejected": MESSAGES}, two dialogs with the same
    beginning; or that beginning as "prompt", and only what follows under the other two. Instead of messages there may
    be a text: of the user in "prompt", of the assistant elsewhere.

    length: as for `read_dialogs`, of each of the two.

    Raises InputError as `read_dialogs` does, and where the two do not differ.
    """
    pairs = []
    for source in sources:
        for place, record in records(source):
            prompt = _messages(place, record, "prompt", "user") if "prompt" in record else []
            chosen, rejected = (
                _encoded(place, prompt + _messages(place, record, key, "assistant"), record.get("tools"), chat_format,
                         length)
                for key in ("chosen", "rejected")
            )  # fmt: skip
            shared = len(os.path.commonprefix([chosen.ids, rejected.ids]))
            if shared == max(len(chosen.ids), len(rejected.ids)):
                raise InputError(
                    f"{place}: chosen and rejected are the same{'' if chosen.whole else ' as far as read'}"
                )
            chosen, rejected = (_learned_from(dialog, shared) for dialog in (chosen, rejected))
            for dialog in (chosen, rejected):
                _require_answer(dialog, length)
            pairs.append(Pair(chosen, rejected))
    return pairs


def _messages(place: str, record: dict[str, Any], key: str, role: str | None = None) -> list[Message]:
    value = record.get(key)
    if isinstance(value, str) and role is not None:
        return [{"role": role, "content": value}]
    if not isinstance(value, list) or not value:
        text = "" if role is None else ", or a text"
        raise InputError(f'{place}: "{key}" must be a list of {{"role": ..., "content": ...}}{text}')
    return value


def _encoded(place: str, messages: list[Message], tools: Any, chat_format: ChatFormat, length: int) -> Dialog:
    try:
        ids, written = chat_format.encode_with_mask(messages, tools)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    if not any(message["role"] == "assistant" for message in messages):
        raise InputError(f"{place}: there is no message of the assistant, so nothing to learn")
    return Dialog(place, ids[: length + 1], written[: length + 1], len(ids) <= length + 1)


def _learned_from(dialog: Dialog, begin: int) -> Dialog:
    written = [index >= begin and each for index, each in enumerate(dialog.written)]
    return Dialog(dialog.place, dialog.ids, written, dialog.whole)


def _require_answer(dialog: Dialog, length: int) -> None:
    if any(dialog.written[1:]):
        return
    if dialog.whole:
        raise InputError(f"{dialog.place}: the chat format leaves nothing of the assistant's that could be learned")
    raise InputError(
        f"{dialog.place}: its first {length} tokens hold nothing of the assistant's that could be learned;"
        " read more of it (sequence_length), or leave it out"
    )


def fingerprint(examples: Iterable[Dialog | Pair]) -> str:
    """A number that tells what is learned from, in hexadecimal."""
    digest = hashlib.sha256()
    for example in examples:
        for dialog in example.texts:
            digest.update(len(dialog.ids).to_bytes(8, "little"))
            digest.update(np.array(dialog.ids, np.int64).tobytes() + bytes(dialog.written))
    return digest.hexdigest()[:16]


class Rows:
    """Examples in random order, as many together as a row holds: `rows[number]` is a list of their indices.

    In every epoch each is read once. A row follows from its number and the seed alone; rows have no end.
    """

    def __init__(self, lengths: Sequence[int], row_length: int, seed: int) -> None:
        """row_length: tokens in a row; an example that is longer has a row to itself."""
        if not lengths:
            raise InputError("there is nothing to train on")
        self._lengths, self._row_length, self._seed = lengths, row_length, seed
        self._first = [0]  # of each epoch's rows, and of those after
        self._kept: dict[int, list[list[int]]] = {}

    def __getitem__(self, number: int) -> list[int]:
        epoch = int(np.searchsorted(self._first, number, side="right")) - 1
        while number >= self._first[-1]:
            epoch = len(self._first) - 1
            self._first.append(self._first[-1] + len(self._epoch(epoch)))
        return self._epoch(epoch)[number - self._first[epoch]]

    def count(self, epochs: float) -> int:
        """How many rows so many epochs have, the last of which need not be whole."""
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
    """Indices in the order given, cut into rows of row_length tokens at most, or of one example."""
    rows: list[list[int]] = []
    room = -1
    for index in map(int, order):
        if lengths[index] > room:
            rows.append([])
            room = row_length
        rows[-1].append(index)
        room -= lengths[index]
    return rows


def batch_of(rows: Sequence[Sequence[Dialog | Pair]], packed: bool = True) -> Batch:
    """The texts of examples, each read from its own beginning and without the others.

    packed: the examples of a row stand in one row, and positions begin anew with each text; otherwise each text has a
        row of its own. Both give the same loss. Rows are filled up with padding.
    """
    texts = [[_read(dialog) for example in row for dialog in example.texts] for row in rows]
    filled = [torch.cat(row, dim=1) for row in texts] if packed else [text for row in texts for text in row]
    longest = max(row.shape[1] for row in filled)
    batch = torch.tensor((0, IGNORED, -1))[:, None, None].repeat(1, len(filled), longest)
    for number, row in enumerate(filled):
        batch[:, number, : row.shape[1]] = row
    inputs, targets, positions = batch
    return Batch(inputs, targets, positions if packed else None)


def _read(dialog: Dialog) -> Tensor:
    """Inputs, targets and positions: [3, tokens]."""
    ids = torch.tensor(dialog.ids)
    written = torch.tensor(dialog.written)
    return torch.stack((ids[:-1], ids[1:].masked_fill(~written[1:], IGNORED), torch.arange(len(dialog))))


def texts_of(batch: Batch) -> list[tuple[int, slice]]:
    """Where the texts of a batch by `batch_of` are, in its order: row and columns, which may have padding behind."""
    rows, columns = batch.inputs.shape
    if batch.positions is None:
        return [(row, slice(0, columns)) for row in range(rows)]
    places = torch.nonzero(batch.positions == 0).tolist()
    following = [*places[1:], [rows, 0]]
    return [
        (row, slice(begin, end if row == next_row else columns))
        for (row, begin), (next_row, end) in zip(places, following, strict=True)
    ]
