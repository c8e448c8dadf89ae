"""TextBytes files: a document each, or several between separators."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from bpe import _core
from bpe.corpus.feed import Cleaner, FeedState, ReadOptions, TextBytes, TextPart
from bpe.corpus.streams import ByteStream
from bpe.errors import InputError


def text_parts(
    stream: ByteStream, options: ReadOptions, cleaner: Cleaner, state: FeedState | None, *, hashed: bool
) -> Iterator[TextPart]:
    """The documents of a text; one that is longer than a block in pieces, if there is a `cut`.

    hashed: the stream has no name and size to know it by, so the state holds a checksum of what is before it.
    """
    separator, cut = options.separator, options.cut
    window = _Window(stream, cleaner, state, options.block, hashed)
    begun = bool(state and state["begun"])  # a piece of the document was handed out already
    while True:
        # As much again as there is, so that a long document takes linear time.
        everything = cut is None and separator is None
        window.read(-1 if everything else max(options.block, len(window.text)))

        # 1. What is complete.
        texts: list[TextBytes] = []
        documents = 0
        last = window.text
        if separator is not None:
            *complete, last = last.split(separator)
            if window.end:
                complete.append(last)
            for document in complete:
                document = document.rstrip() if begun else document.strip()
                if document:
                    texts.append(document)
                documents += bool(document) or begun
                begun = False
        elif window.end:
            documents = 1
            if last or not begun:
                texts.append(last)
        if window.end:
            yield TextPart(texts, documents, sum(map(len, texts)), None, stream.read_so_far)
            return

        # 2. Of the last document, what can be counted whatever follows.
        if cut is not None:
            known = last
            if separator is not None:
                # Its last bytes may begin a separator, and white space counts only between text and text.
                known = last[: len(last) - len(separator) + 1].rstrip()
                if not begun:
                    known = known.lstrip()
                    last = last[last.find(known[:1]) :] if known else last
            if known and (place := cut(known)):
                texts.append(memoryview(known)[:place])
                last = last[place:]
                begun = True
        if texts:
            window.drop(len(window.text) - len(last))
            state = {**window.state, "begun": begun}
            yield TextPart(texts, documents, sum(map(len, texts)), state, stream.read_so_far)


class _Window:
    """Well-formed text of a stream that was not handed out yet.

    Its place is the beginning of a block in the stream, and how much of the text of that block is done with: bytes may
    have been replaced, and offsets in the text are not those in the stream.
    """

    def __init__(self, stream: ByteStream, cleaner: Cleaner, state: FeedState | None, block: int, hashed: bool) -> None:
        self.text = b""
        self.end = False
        self._stream, self._cleaner = stream, cleaner
        self._rest = b""  # the beginning of a character
        self._checksum: int | None = 0 if hashed else None
        self._blocks: list[tuple[int, FeedState]] = []  # where in the text each block begins, and its state
        if state is None:
            return
        if hashed:
            self._check(state, block)
        else:
            stream.skip(state["offset"])
        while len(self.text) < state["skip"] and not self.end:
            self.read(block)
        self.drop(state["skip"])

    def read(self, size: int) -> None:
        """Another block; all that is left if `size` is negative."""
        if self.end:
            return
        start = self._stream.offset - len(self._rest)
        state = {"offset": start, **self._cleaner.state}
        if self._checksum is not None:
            state["crc32"] = self._checksum
        self._blocks.append((len(self.text), state))
        block = self._stream.read(size)
        self.end = size < 0 or len(block) < size
        block = self._rest + block
        unfinished = 0 if self.end else _core.unfinished_character(block)
        block, self._rest = block[: len(block) - unfinished], block[len(block) - unfinished :]
        if self._checksum is not None:
            self._checksum = zlib.crc32(block, self._checksum)
        self.text += self._cleaner.clean(block, start=start)

    def drop(self, size: int) -> None:
        """The first bytes of the text are done with."""
        self.text = self.text[size:]
        self._blocks = [(begin - size, state) for begin, state in self._blocks]
        while len(self._blocks) > 1 and self._blocks[1][0] <= 0:
            del self._blocks[0]

    @property
    def state(self) -> FeedState:
        begin, state = self._blocks[0]
        return {**state, "skip": -begin}

    def _check(self, state: FeedState, block: int) -> None:
        checksum = 0
        while self._stream.offset < state["offset"]:
            text = self._stream.read(min(block, state["offset"] - self._stream.offset))
            checksum = zlib.crc32(text, checksum)
            if not text:
                break
        if self._stream.offset != state["offset"] or checksum != state["crc32"]:
            raise InputError(f"{self._stream.name}: this is not the text that was begun with; its beginning differs")
        self._checksum = checksum
