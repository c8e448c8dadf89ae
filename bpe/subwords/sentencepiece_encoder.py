"""Vocabularies of Unigram, whole words or characters in SentencePiece's format, encoded by ``sentencepiece``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from bpe import _core
from bpe.boundaries import Boundaries, completed
from bpe.errors import InputError
from bpe.subwords.encoder import LibraryEncoder, Spans, library
from bpe.subwords.vocabulary import LibraryVocabulary
from bpe.vocabulary import AddedToken, Vocabulary, chosen_tokens

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SPACE = "▁"
"""The character that stands for a space in SentencePiece's tokens."""
MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
"""The algorithms by their number in the format."""

_BYTE = re.compile("<0x([0-9A-F]{2})>")
_USER_DEFINED = 4
_INCOMPLETE = "not a complete SentencePiece model; download or copy it again"


class SentencePieceEncoder(LibraryEncoder):
    """Encodes with ``sentencepiece``.

    A special token in a text, where it is allowed, cuts the text, and each part is encoded as a text by itself.
    """

    package = "sentencepiece"
    format = "sentencepiece"

    def __init__(self, content: bytes, algorithm: str, added: Sequence[AddedToken] | None = None) -> None:
        """
        Args:
            content: The content of the .model file.
            algorithm: The algorithm of the vocabulary: "unigram", "word" or "char".
            added: The added tokens. Default: the control symbols, which are special, and the user-defined symbols.

        Raises:
            InputError: When the package is not installed, or cannot read the file.
        """
        self.content, self.algorithm = content, algorithm
        module = library(self.package, f"a SentencePiece model of the type {algorithm}")
        try:
            self.processor = module.SentencePieceProcessor(model_proto=content)
            count = self.processor.vocab_size()
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"the sentencepiece package cannot read the model ({reason})") from None
        if not count:
            raise InputError("the model has no tokens")
        texts = [self._text_of(id) for id in range(count)]
        self.own_added = tuple(self._own_added(texts))
        self.added = self.own_added if added is None else tuple(added)
        own = {token.id for token in self.own_added}
        tokens = {id: self._bytes_of(id, text) for id, text in enumerate(texts) if id not in own}
        super().__init__(tokens, dict(enumerate(texts)), self.added)
        self._controls = {token.id: token.content.encode() for token in self.added if token.special}

    def _text_of(self, id: int) -> str:
        try:
            text: str = self.processor.id_to_piece(id)
        except UnicodeDecodeError:
            raise InputError(f"piece {id} is not valid UTF-8") from None
        return text

    def _own_added(self, texts: Sequence[str]) -> Iterable[AddedToken]:
        types = piece_types(self.content)
        for id, text in enumerate(texts):
            if self.processor.is_control(id):
                yield AddedToken(text, id)
            elif types[id : id + 1] == [_USER_DEFINED]:
                yield AddedToken(text.replace(SPACE, " "), id, special=False)

    def _bytes_of(self, id: int, text: str) -> bytes:
        if self.processor.is_byte(id) and (match := _BYTE.fullmatch(text)):
            return bytes([int(match[1], 16)])
        if self.processor.is_unknown(id):
            surface: str = self.processor.decode([id])
            return surface.encode()
        return text.replace(SPACE, " ").encode("utf-8", "replace")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.content, self.algorithm, self.added)

    def with_added(self, added: Sequence[AddedToken]) -> SentencePieceEncoder:
        return SentencePieceEncoder(self.content, self.algorithm, added)

    def matcher(self, allowed: AbstractSet[str]) -> _core.AddedTokens | None:
        # sentencepiece finds the user-defined symbols itself.
        found = [
            (token.content, token.id, False, False, False, False, False)
            for token in self.added
            if token.special and token.content in allowed
        ]
        return _core.AddedTokens(found) if found else None

    def encode_str(self, text: str, added: _core.AddedTokens | None) -> list[int]:
        if added is None:
            return list(self.processor.encode(text))
        ids: list[int] = []
        for part, _, _, id in _parts(text.encode(), added):
            ids += self.processor.encode(part) if id is None else [id]
        return ids

    def encode_many(self, texts: Sequence[str], added: Any, threads: int) -> list[list[int]]:
        if added is None:
            rows: list[list[int]] = self.processor.encode(list(texts), num_threads=threads)
            return rows
        return super().encode_many(texts, added, threads)

    def spans_of(self, text: str, added: _core.AddedTokens | None) -> Spans:
        content = text.encode()
        if added is None:
            return self._spans(content)
        spans: Spans = []
        for part, start, end, id in _parts(content, added):
            if id is None:
                spans += [(start + begin, start + stop) for begin, stop in self._spans(part)]
            else:
                spans.append((start, end))
        return spans

    def _spans(self, content: bytes) -> Spans:
        found = self.processor.encode(content, return_type="offset_mapping")
        return _spread(found["offsets"], [self.processor.is_byte(id) for id in found["ids"]])

    def decode_bytes(self, ids: Sequence[int] | npt.NDArray[np.uint32]) -> bytes:
        decoded = b""
        part: list[int] = []
        for id in self.checked_ids(ids):
            if id not in self._controls:
                part.append(id)
                continue
            decoded += self._decoded(part) + self._controls[id]
            part = []
        return decoded + self._decoded(part)

    def _decoded(self, ids: list[int]) -> bytes:
        decoded: bytes = self.processor.decode(ids, return_type=bytes) if ids else b""
        return decoded


def _parts(content: bytes, added: _core.AddedTokens) -> Iterator[tuple[bytes, int, int, int | None]]:
    """Yield each special token of a text and each text between: its content, begin and end, and its id or None."""
    begin = 0
    for start, end, id in added.all_in(content):
        if start > begin:
            yield content[begin:start], begin, start, None
        yield content[start:end], start, end, id
        begin = end
    if begin < len(content):
        yield content[begin:], begin, len(content), None


def _spread(spans: Spans, are_bytes: Sequence[bool]) -> Spans:
    """Give each token of a single byte its byte; sentencepiece gives the whole character to the last of them."""
    spread = list(spans)
    first = 0
    for place, (span, is_byte) in enumerate(zip(spans, are_bytes, strict=True)):
        begin, end = span
        if not is_byte or begin == end:
            first = first if is_byte else place + 1
            continue
        if end - begin == place + 1 - first:
            spread[first : place + 1] = [(at, at + 1) for at in range(begin, end)]
        first = place + 1
    return spread


def read(content: bytes, name: str, special_tokens: Mapping[str, int] | Sequence[str] | None) -> LibraryVocabulary:
    """Read a SentencePiece model of Unigram, words or characters.

    Args:
        content: The content of the file.
        name: The name of the file, which names the vocabulary.
        special_tokens: The special tokens to use instead of the file's, or names to add to them.

    Raises:
        InputError: When the model is damaged or of another kind.
    """
    encoder = SentencePieceEncoder(content, MODEL_TYPES[model_type(content)])
    processor = encoder.processor
    ids = {processor.id_to_piece(id): id for id in range(processor.vocab_size())}
    added = list(chosen_tokens(encoder.own_added, special_tokens, ids, len(ids)).values())
    for token in added:
        if token.id in encoder.tokens and token not in encoder.own_added:
            raise InputError(
                f"{token.content!r} is an ordinary token of the model and cannot become a special token; choose another"
                " name"
            )
    if special_tokens is not None:
        encoder = encoder.with_added(added)
    vocabulary = LibraryVocabulary(name.removesuffix(".model"), encoder, added)
    if isinstance(special_tokens, Mapping):
        return vocabulary
    kept = {token.id for token in added}
    bos, eos = (id if id in kept else None for id in (processor.bos_id(), processor.eos_id()))
    said = Boundaries(
        bos_id=bos,
        eos_ids=() if eos is None else (eos,),
        eos_id=eos,
        bos_from="" if bos is None else "the SentencePiece model (bos_id)",
        eos_from="" if eos is None else "the SentencePiece model (eos_id)",
    )
    return vocabulary_with(vocabulary, completed(said, vocabulary.added_ids))


def vocabulary_with(vocabulary: LibraryVocabulary, boundaries: Boundaries) -> LibraryVocabulary:
    """Return the vocabulary with other boundaries."""
    changed = vocabulary.with_boundaries(boundaries)
    assert isinstance(changed, LibraryVocabulary)
    return changed


def render(vocabulary: Vocabulary) -> bytes:
    """Return the content of the .model file of a vocabulary.

    Raises:
        InputError: When the vocabulary is not a SentencePiece model, or has special tokens that were added to it.
    """
    encoder = vocabulary.library
    if not isinstance(encoder, SentencePieceEncoder):
        raise InputError(f"{vocabulary.name} is not a SentencePiece model; save it as .json")
    added = [token.content for token in vocabulary.added_tokens if token not in encoder.own_added]
    if added:
        raise InputError(
            f"{vocabulary.name} has special tokens that are not in the SentencePiece model, such as {added[0]!r}, and"
            " the model cannot take them; train it with them"
        )
    return encoder.content


# The format is a protobuf: "pieces" (1: text, score, type), "trainer_spec" (2), "normalizer_spec" (3), and more.


def model_type(content: bytes) -> int:
    """Return the number of the algorithm of a model; 1, the default, if the file does not say.

    Raises:
        InputError: When the file is no SentencePiece model, or the number is unknown.
    """
    number = 1
    found = set()
    for field, value in _fields(content):
        found.add(field)
        if field == 2 and isinstance(value, bytes):
            number = next((each for key, each in _fields(value) if key == 3 and isinstance(each, int)), number)
    if not found >= {1, 2, 3}:
        raise InputError(_INCOMPLETE)
    if number not in MODEL_TYPES:
        raise InputError(f"the SentencePiece model is of the type {number}, which is not known")
    return number


def piece_types(content: bytes) -> list[int]:
    """Return the type of each piece of a model, 1 (normal) where the file does not say.

    Raises:
        InputError: When the file is no SentencePiece model.
    """
    pieces = [value for field, value in _fields(content) if field == 1 and isinstance(value, bytes)]
    return [next((each for key, each in _fields(piece) if key == 3 and isinstance(each, int)), 1) for piece in pieces]


def _fields(content: bytes) -> Iterable[tuple[int, int | bytes]]:
    """Yield the number and the value of each field of a protobuf message."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        kind = key & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(content, at)
        else:
            size = {1: 8, 5: 4}.get(kind)
            if kind == 2:
                size, at = _varint(content, at)
            if size is None or at + size > len(content):
                raise InputError(_INCOMPLETE)
            value, at = content[at : at + size], at + size
        yield key >> 3, value


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            break
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise InputError(_INCOMPLETE)
