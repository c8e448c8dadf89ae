"""Vocabularies that merge characters instead of bytes, as SentencePiece does."""

from __future__ import annotations

import codecs
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, groupby
from typing import Any, NamedTuple

from bpe import _core
from bpe.boundaries import Boundaries, extended, known_boundaries
from bpe.errors import InputError
from bpe.patterns import Pattern
from bpe.vocabulary import AddedToken, Vocabulary, checked_names, chosen_tokens

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""The types of pieces."""
TYPE_NAMES = ("", "NORMAL", "UNKNOWN", "CONTROL", "USER_DEFINED", "UNUSED", "BYTE")
SPACE = "\u2581"
"""The character that stands for a space in pieces."""
_BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")
UNKNOWN_SURFACE = " \u2047 "
"""What the unknown piece decodes to if a model does not say."""

PIECE_PATTERN = Pattern("sentencepiece", "", -1)
"""What a vocabulary of pieces has as its split pattern: its merges may cross any place of a text."""


class PieceNormalizer(NamedTuple):
    """How SentencePiece normalizes a text before it merges."""

    name: str = "identity"
    map: bytes = b""
    """The precompiled map: strings and what replaces them. b"" replaces nothing."""
    add_dummy_prefix: bool = True
    """Whether a text gets a space in front, or behind it with `whitespace_as_suffix`."""
    remove_extra_whitespaces: bool = True
    """Whether spaces at the edges of a text and repeated spaces are removed."""
    escape_whitespaces: bool = True
    """Whether spaces become U+2581."""
    whitespace_as_suffix: bool = False
    """Whether pieces end with the space that separates words, instead of beginning with it."""
    prefix_unless_space: bool = False
    """Whether a text that begins with a space gets no other in front, as with Metaspace in ``tokenizers``."""
    prefix_parts: bool = True
    """Whether the text behind an added token gets a space in front as well."""


class PieceModel(NamedTuple):
    """The pieces of a SentencePiece model and how they merge: the piece with the highest score first."""

    pieces: tuple[str, ...]
    """The text of each piece, by id."""
    scores: memoryview
    """The score of each piece. [pieces], float32"""
    types: bytes
    """The type of each piece, as in `TYPE_NAMES`."""
    byte_fallback: bool
    """Whether characters without a piece become the pieces of their bytes, instead of the unknown piece."""
    normalizer: PieceNormalizer = PieceNormalizer()
    unknown_surface: str = UNKNOWN_SURFACE
    """What the unknown piece decodes to."""
    merges: memoryview | None = None
    """The left, right and merged id of the pairs that merge, in their order, instead of scores. [3 * merges], uint32"""
    unknown: str = "fused"
    """What becomes of characters without a piece: a run of them is the unknown piece ("fused"), each is it ("each"), or
    they are left out ("dropped")."""
    decoding: str = "sentencepiece"
    """What decoding removes where the ids begin. "sentencepiece": the spaces that the normalizer adds there, also
    behind control pieces. As the decoder of a tokenizer.json does, "keep": nothing; "strip": a space with which the
    text begins; "metaspace": all spaces of the first token."""
    file: Mapping[str, Any] | None = None
    """What else the model file says, for writing it again; see `bpe.formats.sentencepiece_bpe`."""

    @property
    def unknown_id(self) -> int:
        """The id of the unknown piece; -1 if there is none."""
        return self.types.find(UNKNOWN)

    def token_bytes(self, id: int) -> bytes:
        """Return what the id of a piece decodes to; b"" for a control piece."""
        kind, piece = self.types[id], self.pieces[id]
        if kind == CONTROL:
            return b""
        if kind == BYTE:
            return bytes([int(piece[3:5], 16)])
        if kind == UNKNOWN:
            return self.unknown_surface.encode()
        return piece.replace(SPACE, " ").encode()


class PieceVocabulary(Vocabulary):
    """The vocabulary of a SentencePiece model whose pieces were learned by byte-pair encoding.

    Control pieces are its special tokens, and so is the unknown piece. User-defined pieces are found in every text,
    before it is normalized; they are ordinary tokens.
    """

    def __init__(
        self,
        name: str,
        model: PieceModel,
        added_tokens: Iterable[AddedToken] | None = None,
        boundaries: Boundaries | None = None,
    ) -> None:
        """
        Args:
            name: What to call the vocabulary.
            model: The pieces.
            added_tokens: The tokens that are searched for before a text is normalized. Default: the control pieces and
                the unknown piece.
            boundaries: What begins and ends a text. Default: the added tokens of known names.

        Raises:
            ValueError: When `sentencepiece` would refuse the model, or cannot encode some text with it.
        """
        if model.merges is None:
            check_pieces(model)
        self.name = name
        self.model = model
        self.pattern = PIECE_PATTERN
        self.normalizer = None
        self.core_normalizer = None  # the splitter normalizes
        self.merge_list = model.merges
        self.foreign_tokens = {}
        self.added_tokens = tuple(piece_tokens(model) if added_tokens is None else added_tokens)
        self.added_ids = {token.content: token.id for token in self.added_tokens}
        self.special_tokens = {token.content: token.id for token in self.added_tokens if token.special}
        self.boundaries = known_boundaries(self.added_ids) if boundaries is None else boundaries
        texts = [model.token_bytes(id) for id in range(len(model.pieces))]
        ids = [id for id, text in enumerate(texts) if text]
        self.tokens = b"".join(texts)
        self.offsets = memoryview(array("Q", accumulate((len(texts[id]) for id in ids), initial=0)))
        self.ids = memoryview(array("I", ids))
        self.pieces: _core.Pieces = core_pieces(model)
        """The core's rules of merging."""
        self.splitter = piece_splitter(self.pieces, model.normalizer)
        self.encoder = _core.Encoder(
            self.tokens,
            self.offsets,
            self.ids,
            self.splitter,
            _decoded_texts(model, self.added_ids),  # type: ignore[arg-type]
            pieces=self.pieces,
            removed_spaces=_removed_spaces(model.normalizer) if model.decoding == "sentencepiece" else 0,
            first_tokens=_first_tokens(model, self.added_ids),
        )
        self.special_matcher = _core.SpecialTokens(self.special_tokens)
        all_special = len(self.special_tokens) == len(self.added_ids)
        self.always_added = None if all_special else self.added_matcher(frozenset())
        self.unknown_bytes = b""
        self.merges_only = True
        self.replaces_byte_runs = model.decoding != "sentencepiece"
        self.max_token_value = max(len(model.pieces) - 1, max(self.added_ids.values(), default=0))

    @property
    def token_count(self) -> int:
        """The number of pieces and added tokens."""
        return len({*range(len(self.model.pieces)), *self.added_ids.values()})

    @property
    def changes_text(self) -> bool:
        """Always: text is normalized, and merges may cross any place of it."""
        return True

    @property
    def takes_white_space(self) -> bool:
        """Always: normalization changes white space, so the tokens of a text need not decode to it."""
        return True

    @property
    def unreachable_count(self) -> int:
        """The number of pieces of several characters that no merge leads to."""
        merging = [
            piece
            for piece, kind in zip(self.model.pieces, self.model.types, strict=True)
            if kind in (NORMAL, UNUSED) and len(piece) > 1
        ]
        return len(merging) - self.merge_count

    def merges(self) -> list[tuple[int, int, int]]:
        """Return the left, right and merged id of each pair of pieces that merges, in merge order.

        Pairs with a character that is no piece are left out.
        """
        ids = memoryview(self.pieces.merges()).cast("I")
        limit = len(self.model.pieces)
        triples = zip(ids[0::3], ids[1::3], ids[2::3], strict=True)
        return [(left, right, merged) for left, right, merged in triples if left < limit and right < limit]

    @cached_property
    def ranks(self) -> dict[bytes, int]:
        """The id of each token by its bytes, without control pieces. A character comes before the piece of its byte."""
        by_bytes: dict[bytes, int] = {}
        for id in sorted(self.ids, key=lambda id: self.model.types[id] not in (BYTE, UNKNOWN)):
            by_bytes[self.model.token_bytes(id)] = id
        return {token: id for token, id in sorted(by_bytes.items(), key=lambda item: item[1])}

    def decoded(self, tokens: Iterable[int]) -> str:
        """Decode ids whose bytes are not UTF-8 as the decoder of a tokenizer.json does.

        Of a run of tokens for bytes that is not UTF-8 as a whole, each byte becomes U+FFFD.
        """
        parts: list[str] = []
        runs = groupby(map(int, tokens), lambda id: id < len(self.model.types) and self.model.types[id] == BYTE)
        for is_byte_run, ids in runs:
            part = b"".join(map(self.encoder.bytes_of, ids)) if is_byte_run else b""
            if not is_byte_run:
                listed = [*ids]
                decode_bytes = self.encoder.bytes_of
                first = self.encoder.decode_bytes(listed[:1]) if not parts else decode_bytes(listed[0])
                part = first + b"".join(map(decode_bytes, listed[1:]))
            try:
                text = part.decode()
            except UnicodeDecodeError:
                text = "\ufffd" * len(part)
            if is_byte_run and not parts and self.model.decoding == "strip":
                text = text.removeprefix(" ")
            parts.append(text)
        return "".join(parts)

    def with_special_tokens(self, names: Sequence[str]) -> PieceVocabulary:
        """Return a vocabulary with more special tokens; see `Vocabulary.with_special_tokens`."""
        ids = {piece: id for id, piece in enumerate(self.model.pieces)}
        checked_names(names)
        added = chosen_tokens(self.added_tokens, names, ids, self.n_vocab).values() if names else self.added_tokens
        boundaries = extended(self.boundaries, {token.content: token.id for token in added})
        return self.with_added_tokens(added, boundaries)

    def with_added_tokens(self, added: Iterable[AddedToken], boundaries: Boundaries | None = None) -> PieceVocabulary:
        """Return a vocabulary with other added tokens; see `Vocabulary.with_added_tokens`."""
        return PieceVocabulary(self.name, self.model, added, self.boundaries if boundaries is None else boundaries)

    def __getstate__(self) -> dict[str, object]:
        merges = None if self.model.merges is None else bytes(self.model.merges)
        model = self.model._replace(scores=bytes(self.model.scores), merges=merges)  # type: ignore[arg-type]
        return {"name": self.name, "model": model, "added_tokens": self.added_tokens, "boundaries": self.boundaries}

    def __setstate__(self, state: dict[str, Any]) -> None:
        model = state["model"]
        merges = None if model.merges is None else memoryview(model.merges).cast("I")
        state["model"] = model._replace(scores=memoryview(model.scores).cast("f"), merges=merges)
        self.__init__(**state)  # type: ignore[misc]


def check_pieces(model: PieceModel) -> None:
    """Check what the core takes for granted.

    Raises:
        InputError: When a piece is empty or repeated, or has a type that does not exist, or the model has no unknown
            piece or more than one, or pieces of bytes without `byte_fallback`, or not all 256 with it.
    """
    seen: tuple[dict[str, int], dict[str, int]] = ({}, {})
    for id, (piece, kind) in enumerate(zip(model.pieces, model.types, strict=True)):
        if not piece:
            raise InputError(f"piece {id} is empty")
        if not NORMAL <= kind <= BYTE:
            raise InputError(f"piece {id}, {piece!r}, has the type {kind}; types are 1 to 6")
        first = seen[kind in (NORMAL, USER_DEFINED, UNUSED)].setdefault(piece, id)
        if first != id:
            raise InputError(f"pieces {first} and {id} are the same: {piece!r}")
        if kind == USER_DEFINED and "\0" in piece:
            raise InputError(f"the user-defined piece {id}, {piece!r}, contains a NUL, which is not supported")
        if kind == BYTE and not _BYTE_PIECE.fullmatch(piece):
            raise InputError(f"piece {id}, {piece!r}, has the type BYTE, but is not written as a byte such as <0x0A>")
        if kind == BYTE and not model.byte_fallback:
            raise InputError(f"piece {id}, {piece!r}, has the type BYTE, but trainer_spec.byte_fallback is false")
    unknown = model.types.count(UNKNOWN)
    if unknown != 1:
        raise InputError(f"{unknown} pieces have the type UNKNOWN; a model has one")
    if model.byte_fallback:
        missing = [text for text in map("<0x{:02X}>".format, range(256)) if seen[False].get(text) is None]
        if missing:
            raise InputError(f"trainer_spec.byte_fallback is true, but there is no piece {missing[0]}")


def piece_tokens(model: PieceModel) -> list[AddedToken]:
    """Return the control pieces and the unknown piece of a model as added tokens."""
    kinds = enumerate(zip(model.pieces, model.types, strict=True))
    return [AddedToken(piece, id) for id, (piece, kind) in kinds if kind in (CONTROL, UNKNOWN)]


def piece_splitter(pieces: _core.Pieces, normalizer: PieceNormalizer) -> _core.Splitter:
    """Return what normalizes and splits a text.

    Raises:
        InputError: When the precompiled map is damaged.
    """
    try:
        return _core.piece_splitter(pieces, *normalizer[1:])
    except ValueError as error:
        raise InputError(f"normalizer_spec.precompiled_charsmap is damaged: {error}") from error


def core_pieces(model: PieceModel) -> _core.Pieces:
    """Return the core's rules of merging.

    Raises:
        ValueError: When a score is not a number, or a piece is not what its type says.
    """
    texts = [piece.encode() for piece in model.pieces]
    offsets = array("Q", accumulate(map(len, texts), initial=0))
    if model.merges is None:
        return _core.Pieces.from_scores(b"".join(texts), offsets, model.scores, model.types, model.byte_fallback)
    unknown = model.unknown_id
    arguments = (b"".join(texts), offsets, array("I", range(len(texts))), model.merges, model.byte_fallback)
    return _core.Pieces.from_merges(*arguments, None if unknown < 0 else unknown, model.unknown)


def _decoded_texts(model: PieceModel, added_ids: Mapping[str, int]) -> Mapping[str | bytes, int]:
    """Return the ids of the added tokens by what they decode to.

    The decoder of a tokenizer.json makes spaces in these tokens, too. Such a text is bytes, so that it is not the same
    key as that of another token, which is written with spaces.
    """
    if model.decoding == "sentencepiece":
        return added_ids  # type: ignore[return-value]
    texts = {text.replace(SPACE, " ").encode() if SPACE in text else text: id for text, id in added_ids.items()}
    if len(texts) < len(added_ids):
        raise InputError(f"two added tokens differ only in {SPACE} and spaces, which is not supported; remove a token")
    return texts


def _first_tokens(model: PieceModel, added_ids: Mapping[str, int]) -> dict[int, bytes]:
    """Return the bytes of the ids that decode otherwise where they are the first."""
    if model.decoding not in ("strip", "metaspace"):
        return {}
    texts = {id: text for text, id in reversed([*added_ids.items()])}
    texts |= {id: text for id, text in enumerate(model.pieces) if model.types[id] not in (CONTROL, BYTE)}
    if model.decoding == "metaspace":
        return {id: text.replace(SPACE, "").encode() for id, text in texts.items() if SPACE in text}
    space = "<0x20>"
    texts |= {id: " " for id, text in enumerate(model.pieces) if model.types[id] == BYTE and text == space}
    return {id: text[1:].replace(SPACE, " ").encode() for id, text in texts.items() if text[0] in (" ", SPACE)}


def _removed_spaces(normalizer: PieceNormalizer) -> int:
    if normalizer.remove_extra_whitespaces:
        return 2
    return 1 if normalizer.add_dummy_prefix else 0


def _replace_bytes(error: UnicodeError) -> tuple[str, int]:
    """Replace each malformed byte by U+FFFD, as SentencePiece does."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("bpe_replace_bytes", _replace_bytes)
