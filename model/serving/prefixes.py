"""The memory of keys and values that texts share: which sequence a text gets, and what of others it reuses.

The tokens of texts that ended stay in memory until it is needed for others. A new text begins with the longest common
prefix of its prompt and what is in memory: the system prompt of another conversation, or the earlier turns of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from model.generation.sequences import Sequences

Ids: TypeAlias = npt.NDArray[np.int64]
_WORTH_WAITING = 16  # tokens; for fewer, a text does not wait until another text has read them
_GROWTH = 256  # tokens; memory of a text grows by at least so many at a time


class Slot:
    """A sequence: the tokens in it, and how much memory it has and may take."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ids: Ids = np.empty(0, np.int64)
        """The tokens in memory, and room for more."""
        self.length = 0
        """How many of `ids` are in memory."""
        self.read = 0
        """How many of them were read as a prompt; the others were generated."""
        self.prompt: Ids | None = None
        """The prompt that is being read; None if none is."""
        self.capacity = 0
        """Tokens that have memory."""
        self.limit = 0
        """Tokens that the text in it may come to; 0 if the text has ended."""
        self.used = 0
        """When it was used last, as a count of uses."""

    def append(self, ids: Sequence[int] | Ids) -> None:
        """Record tokens that were read."""
        end = self.length + len(ids)
        if end > len(self.ids):
            room = np.empty(max(end, 2 * len(self.ids), _GROWTH), np.int64)
            room[: self.length] = self.ids[: self.length]
            self.ids = room
        self.ids[self.length : end] = ids
        self.length = end
        if self.prompt is not None:
            self.read = end

    def cut(self, length: int) -> None:
        """Record that only the first tokens are left."""
        self.length, self.read = length, min(self.read, length)


class Prefixes:
    """Gives sequences to texts, within a limit of memory, and keeps what they have read for others."""

    def __init__(self, sequences: Sequences, memory: int) -> None:
        """Start with empty sequences.

        Args:
            sequences: The sequences; nothing else may use them.
            memory: The largest number of bytes of keys and values, of running and kept texts together.
        """
        self._sequences, self._grain, self.memory = sequences, sequences.grain, memory
        self._slots = [Slot(number) for number in range(sequences.count)]
        self._uses = 0

    @property
    def kept(self) -> int:
        """The number of ended texts whose tokens are in memory."""
        return sum(not slot.limit and slot.length > 0 for slot in self._slots)

    @property
    def bytes(self) -> int:
        """The bytes of keys and values that have memory. Any thread may ask, also while a sequence gets memory."""
        return sum(self._sequences.bytes_for(slot.capacity) for slot in self._slots if slot.capacity)

    def fits(self, limit: int) -> bool:
        """Return whether a text of this many tokens fits into the memory when nothing else is in it."""
        return self._sequences.bytes_for(limit) <= self.memory

    def take(self, prompt: Ids, limit: int, reusable: int) -> Slot | None:
        """Give a text a sequence, which begins with the longest prefix of its prompt in memory.

        Args:
            prompt: The ids of the prompt.
            limit: The largest number of tokens that the text may come to, at least the prompt's.
            reusable: The largest number of tokens of the prompt to reuse.

        Returns:
            The slot; `length` tokens of the prompt need not be read. None if the text has to wait: for a sequence, for
            memory, or for another text that is reading a part of the same prompt.
        """
        best, common = self._longest(prompt, reusable)
        if self._is_coming(prompt[:reusable], common):
            return None
        for source, in_place in self._ways(best, prompt):
            if self._make_room(source, in_place, limit):
                slot = self._begin(source, in_place, common if source else 0)
                slot.limit, slot.prompt = limit, prompt
                self._touch(slot)
                return slot
        return None

    def release(self, slot: Slot) -> None:
        """End a text. Its tokens stay in memory until others need it."""
        slot.limit, slot.prompt = 0, None
        if slot.length:
            self._touch(slot)
        else:
            self.drop(slot)

    def drop(self, slot: Slot) -> None:
        """End a text and forget its tokens."""
        slot.limit, slot.prompt = 0, None
        slot.length = slot.read = slot.capacity = slot.used = 0
        slot.ids = np.empty(0, np.int64)
        self._sequences.free(slot.number)

    def drop_kept(self) -> None:
        """Forget the tokens of all texts that ended."""
        for slot in self._slots:
            if not slot.limit and slot.length:
                self.drop(slot)

    def grow(self, slot: Slot, length: int) -> None:
        """Reserve memory for the first `length` tokens of a text, and some more, within its limit."""
        if length > slot.capacity:
            ahead = slot.capacity + max(_GROWTH, slot.capacity // 2)
            capacity = max(length, min(ahead, slot.limit))
            self._sequences.reserve(slot.number, capacity)
            slot.capacity = capacity

    def _longest(self, prompt: Ids, reusable: int) -> tuple[Slot | None, int]:
        """Return the slot with the longest common prefix, if any has one, and its length. Kept slots come first."""
        best, most = None, 0
        for slot in self._slots:
            common = self._common(slot, prompt, reusable)
            if common > most or (common and common == most and best is not None and best.limit and not slot.limit):
                best, most = slot, common
        return best, most

    def _common(self, slot: Slot, prompt: Ids, reusable: int) -> int:
        """Return how many tokens of a slot a prompt may begin with, so that its logits are those without the slot."""
        common = common_prefix(slot.ids[: slot.length], prompt[:reusable])
        if self._grain == 1 or common == len(prompt) == slot.read:
            return common
        # Generated tokens were not read in the shapes of a prompt, nor was the last piece of a prompt, if that is
        # shorter than in another one.
        common = min(common, slot.read)
        return common - common % self._grain

    def _is_coming(self, prompt: Ids, common: int) -> bool:
        """Return whether another text is about to read more of the same prompt than is in memory."""
        return any(
            slot.prompt is not None
            and common_prefix(slot.prompt, prompt) // self._grain * self._grain >= common + _WORTH_WAITING
            for slot in self._slots
        )

    def _ways(self, best: Slot | None, prompt: Ids) -> list[tuple[Slot | None, bool]]:
        """Return where a text may begin, the best first: (source, whether in the source itself)."""
        nowhere: list[tuple[Slot | None, bool]] = [(None, False)]
        if best is None:
            return nowhere
        if best.limit:
            return [(best, False), *nowhere]
        # A copy keeps the rest of the source for others; if there is no rest, nothing is lost without one.
        ways: list[tuple[Slot | None, bool]] = [(best, False), (best, True)]
        is_continued = common_prefix(best.ids[: best.length], prompt) == best.length
        return [*(reversed(ways) if is_continued else ways), *nowhere]

    def _make_room(self, source: Slot | None, in_place: bool, limit: int) -> bool:
        """Drop kept texts, those unused for longest first, until a text fits. Return False if it cannot fit."""
        running = [slot for slot in self._slots if slot.limit]
        kept = sorted((slot for slot in self._slots if not slot.limit and slot is not source), key=lambda s: s.used)
        needed = sum(self._bytes(slot) for slot in running)
        needed += self._sequences.bytes_for(max(limit, source.capacity) if source and in_place else limit)
        if source is not None and not source.limit and not in_place:
            needed += self._bytes(source)
        if needed > self.memory or (not in_place and not kept):
            return False
        needed += sum(self._bytes(slot) for slot in kept)
        has_empty = in_place or not all(slot.length for slot in kept)
        for slot in kept:
            if needed <= self.memory and has_empty:
                break
            if slot.length:
                needed -= self._bytes(slot)
                self.drop(slot)
                has_empty = True
        return True

    def _begin(self, source: Slot | None, in_place: bool, common: int) -> Slot:
        """Return a slot that holds the first `common` tokens of the source."""
        if source is not None and in_place:
            if common < source.length:
                self._sequences.truncate(source.number, common)
                source.cut(common)
            return source
        slot = next(slot for slot in self._slots if not slot.limit and not slot.length)
        if source is not None:
            try:
                self._sequences.copy(source.number, slot.number, common)
            except BaseException:  # no memory
                self._sequences.free(slot.number)
                raise
            slot.append(source.ids[:common])
            slot.read = min(source.read, common)
            slot.capacity = common
            self._touch(source)
        return slot

    def _bytes(self, slot: Slot) -> int:
        """Return the bytes that a slot has or may come to."""
        tokens = max(slot.limit, slot.capacity)
        return self._sequences.bytes_for(tokens) if tokens else 0

    def _touch(self, slot: Slot) -> None:
        self._uses += 1
        slot.used = self._uses


def common_prefix(one: Ids, other: Ids) -> int:
    """Return the number of equal ids at the beginning of two texts.

    >>> common_prefix(np.array([1, 2, 3]), np.array([1, 2, 4, 5]))
    2
    """
    length = min(len(one), len(other))
    if not length or one[0] != other[0]:
        return 0
    differs = one[:length] != other[:length]
    first = int(differs.argmax())
    return first if differs[first] else length
