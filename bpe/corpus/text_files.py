"""Text files: one document per file, or several documents between separators."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

from bpe import _core
from bpe.corpus.feed import Cleaner, FeedState, ReadOptions, TextBytes, TextPart
from bpe.corpus.streams import ByteStream
from bpe.errors import InputError


def text_parts(
    stream: ByteStream, options: ReadOptions, cleaner: Cleaner, state: FeedState | None, *, hashed: bool
) -> Iterator[TextPart]:
    """Yield the documents of a text file. With a `cut`, a document longer than a block is yielded in pieces.

    Args:
        stream: The bytes of the file.
        options: How to read.
        cleaner: Makes the text well-formed.
        state: Where to resume.
        hashed: Whether the state holds a checksum of the text before it, because the stream has no name and size by
            which to recognise it.

    Raises:
        InputError: When `hashed` and the text before `state` differs from that of the earlier run.
    """
    separator, cut = options.separator, options.cut
    window = _Window(stream, cleaner, state, options.block, hashed)
    begun = bool(state and state["begun"])  # whether a piece of the first document has been yielded
    while True:
        # Read as many bytes again as are held, so that a long document takes linear time.
        everything = cut is None and separator is None
        window.read(-1 if everything else max(options.block, len(window.text)))
        texts, documents, last, begun = _complete_documents(window.text, separator, window.end, begun)
        if window.end:
            yield TextPart(texts, documents, sum(map(len, texts)), None, stream.read_so_far)
            return
        if cut is not None:
            piece, last = _countable_piece(last, separator, cut, begun)
            if piece is not None:
                texts.append(piece)
                begun = True
        if texts:
            window.drop(len(window.text) - len(last))
            state = {**window.state, "begun": begun}
            yield TextPart(texts, documents, sum(map(len, texts)), state, stream.read_so_far)


def _complete_documents(
    text: bytes, separator: bytes | None, is_end: bool, begun: bool
) -> tuple[list[TextBytes], int, bytes, bool]:
    """Split the complete documents off a text.

    Args:
        text: The text that is held.
        separator: What separates documents, or None.
        is_end: Whether the file ends with the text.
        begun: Whether a piece of the first document has been yielded.

    Returns:
        The texts of the documents, how many documents end in them, the text of the unfinished document, and whether a
        piece of that document has been yielded.
    """
    if separator is None:
        if not is_end:
            return [], 0, text, begun
        return ([text] if text or not begun else []), 1, text, begun
    texts: list[TextBytes] = []
    documents = 0
    *complete, last = text.split(separator)
    if is_end:
        complete.append(last)
    for document in complete:
        document = document.rstrip() if begun else document.strip()
        if document:
            texts.append(document)
        documents += bool(document) or begun
        begun = False
    return texts, documents, last, begun


def _countable_piece(
    last: bytes, separator: bytes | None, cut: Callable[[TextBytes], int], begun: bool
) -> tuple[TextBytes | None, bytes]:
    """Split off the piece of an unfinished document that can be counted whatever follows.

    Returns:
        The piece, or None if there is none, and the rest of the document.
    """
    known = last
    if separator is not None:
        # Its last bytes may begin a separator, and white space belongs to a document only between its words.
        known = last[: len(last) - len(separator) + 1].rstrip()
        if not begun:
            known = known.lstrip()
            last = last[last.find(known[:1]) :] if known else last
    if known and (place := cut(known)):
        return memoryview(known)[:place], last[place:]
    return None, last


class _Window:
    """Well-formed text of a stream that has not been yielded yet.

    Its position is the offset of a block in the stream, and how much of the text of that block has been yielded:
    malformed bytes may have been replaced, so offsets in the text differ from offsets in the stream.
    """

    def __init__(self, stream: ByteStream, cleaner: Cleaner, state: FeedState | None, block: int, hashed: bool) -> None:
        self.text = b""
        self.end = False
        self._stream, self._cleaner = stream, cleaner
        self._rest = b""  # the first bytes of an unfinished character
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
        """Read another block of `size` bytes, or all remaining bytes if `size` is negative."""
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
        """Remove the first `size` bytes of the text, which have been yielded."""
        self.text = self.text[size:]
        self._blocks = [(begin - size, state) for begin, state in self._blocks]
        while len(self._blocks) > 1 and self._blocks[1][0] <= 0:
            del self._blocks[0]

    @property
    def state(self) -> FeedState:
        """Where to resume."""
        begin, state = self._blocks[0]
        return {**state, "skip": -begin}

    def _check(self, state: FeedState, block: int) -> None:
        """Read the text before `state`, and raise InputError if its checksum is another one."""
        checksum = 0
        while self._stream.offset < state["offset"]:
            text = self._stream.read(min(block, state["offset"] - self._stream.offset))
            checksum = zlib.crc32(text, checksum)
            if not text:
                break
        if self._stream.offset != state["offset"] or checksum != state["crc32"]:
            raise InputError(
                f"{self._stream.name}: the beginning of this text differs from that of the interrupted run; give the"
                " same text to resume"
            )
        self._checksum = checksum
