"""SentencePiece models learned by byte-pair encoding, as the protocol buffer ModelProto.

The numbers of the fields are those of ``sentencepiece_model.proto`` in https://github.com/google/sentencepiece.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from bpe.boundaries import BEGIN_NAMES, KNOWN_NAME, Boundaries
from bpe.errors import InputError
from bpe.formats.piece_merges import with_scores
from bpe.formats.protobuf import (
    BYTES,
    FIXED32,
    VARINT,
    Field,
    encode_bytes,
    encode_float,
    encode_varint,
    fields,
    signed,
)
from bpe.piece_vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN_SURFACE,
    USER_DEFINED,
    PieceModel,
    PieceNormalizer,
    PieceVocabulary,
    piece_tokens,
)
from bpe.vocabulary import Vocabulary, chosen_tokens

_PIECE, _TRAINER, _NORMALIZER, _SELF_TEST, _DENORMALIZER = range(1, 6)  # of a model
_TEXT, _SCORE, _TYPE = 1, 2, 3  # of a piece
_CHARSMAP = 2  # of a normalizer
_MODEL_TYPES = {1: "UNIGRAM", 2: "BPE", 3: "WORD", 4: "CHAR"}
_BPE = 2


class _Setting(NamedTuple):
    number: int
    default: Any


_TRAINER_FIELDS = {
    "model_type": _Setting(3, 1),
    "treat_whitespace_as_suffix": _Setting(24, False),
    "byte_fallback": _Setting(35, False),
    "unk_id": _Setting(40, 0),
    "bos_id": _Setting(41, 1),
    "eos_id": _Setting(42, 2),
    "unk_surface": _Setting(44, UNKNOWN_SURFACE),
    "bos_piece": _Setting(46, "<s>"),
    "eos_piece": _Setting(47, "</s>"),
}
_NORMALIZER_FIELDS = {
    "name": _Setting(1, ""),
    "precompiled_charsmap": _Setting(_CHARSMAP, b""),
    "add_dummy_prefix": _Setting(3, True),
    "remove_extra_whitespaces": _Setting(4, True),
    "escape_whitespaces": _Setting(5, True),
}


class ModelFile(NamedTuple):
    """What a model file says besides its pieces, so that it can be written again."""

    trainer: bytes = b""
    """The message trainer_spec."""
    normalizer: bytes = b""
    """The message normalizer_spec."""
    others: bytes = b""
    """The other fields of the file, one after the other."""
    content: bytes = b""
    """The content of the file, which is written as it is if nothing has changed."""
    extras: Mapping[int, bytes] = {}
    """Fields of a piece other than its text, score and type, by the id of the piece."""


def read(content: bytes, name: str, special_tokens: Mapping[str, int] | Sequence[str] | None) -> Vocabulary:
    """Read a model.

    Args:
        content: The content of the file.
        name: The name of the file, which names the vocabulary.
        special_tokens: The special tokens to use instead of the file's, or names to add to them.

    Raises:
        InputError: When the file is damaged, or is no BPE model, or `sentencepiece` would refuse it.
    """
    model, trainer = read_model(content)
    ids = {piece: id for id, piece in enumerate(model.pieces)}
    added = chosen_tokens(piece_tokens(model), special_tokens, ids, len(model.pieces)).values()
    vocabulary = PieceVocabulary(name.removesuffix(".model"), model, added)
    if isinstance(special_tokens, Mapping):
        return vocabulary
    return vocabulary.with_boundaries(_boundaries(model, trainer))


def read_model(content: bytes) -> tuple[PieceModel, dict[str, Any]]:
    """Read the pieces of a model file, and the settings of its trainer_spec.

    Raises:
        InputError: When the file is damaged, or the model is not BPE.
    """
    pieces = _Pieces()
    at = pieces.read_common(content)
    specs: dict[int, bytes] = {}
    others = b""
    rest = content[at:]
    for field in fields(rest, f"the SentencePiece model (from byte {at} on)" if at else "the SentencePiece model"):
        if field.number == _PIECE:
            pieces.add(_bytes_of(field, "pieces"))
        elif field.number in (_TRAINER, _NORMALIZER):
            spec = "trainer_spec" if field.number == _TRAINER else "normalizer_spec"
            if field.number in specs:
                raise InputError(f"the SentencePiece model has two fields {spec}")
            specs[field.number] = _bytes_of(field, spec)
        else:
            if field.number == _DENORMALIZER:
                _refuse_denormalizer(_bytes_of(field, "denormalizer_spec"))
            others += rest[field.begin : field.end]
    if _TRAINER not in specs:
        raise InputError("no trainer_spec: the file is cut off, or is no SentencePiece model")
    trainer = _settings(specs[_TRAINER], _TRAINER_FIELDS, "trainer_spec")
    kind = trainer["model_type"]
    if kind != _BPE:
        raise InputError(
            f"trainer_spec.model_type is {_MODEL_TYPES.get(kind, kind)}; of SentencePiece's models, those with BPE are"
            " supported"
        )
    normalizer = _settings(specs.get(_NORMALIZER, b""), _NORMALIZER_FIELDS, "normalizer_spec")
    _refuse_damage(pieces.texts, normalizer["precompiled_charsmap"])
    file = ModelFile(specs[_TRAINER], specs.get(_NORMALIZER, b""), others, bytes(content), pieces.extras)
    model = PieceModel(
        tuple(pieces.texts),
        memoryview(pieces.scores),
        bytes(pieces.types),
        trainer["byte_fallback"],
        PieceNormalizer(*normalizer.values())._replace(whitespace_as_suffix=trainer["treat_whitespace_as_suffix"]),
        trainer["unk_surface"],
        file=file._asdict(),
    )
    return model, trainer


def _refuse_damage(texts: Sequence[str], charsmap: bytes) -> None:
    """Refuse what no trainer writes and `sentencepiece` does not load."""
    if charsmap and not charsmap.endswith(b"\0"):
        raise InputError(
            "normalizer_spec.precompiled_charsmap is damaged: its last replacement does not end with a null character;"
            " download or copy the file again"
        )
    if "\0" not in "".join(texts):
        return
    for id, text in enumerate(texts):
        if "\0" in text and text != "\0":
            raise InputError(
                f"piece {id}, {text!r}, contains a null character, which sentencepiece refuses; train the model again"
                " without such characters, or download or copy the file again"
            )


class _Pieces:
    """Collects the pieces of a file."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.scores = array("f")
        self.types = bytearray()
        self.extras: dict[int, bytes] = {}

    def read_common(self, content: bytes) -> int:
        """Read the pieces at the beginning of a file that are written in the usual form, and return where they end.

        They have a text of up to 110 bytes, a score, and perhaps a type, in this order. Reads a piece in a fifth of the
        time that `add` takes.
        """
        at, size = 0, len(content)
        texts, types, scores = self.texts, self.types, bytearray()
        try:
            while at + 2 < size and content[at] == 0x0A and content[at + 2] == 0x0A:
                end = at + 2 + content[at + 1]
                text_end = at + 4 + content[at + 3]
                if end >= size or content[at + 1] >= 0x80 or content[text_end] != 0x15:
                    break
                if end == text_end + 5:
                    kind = NORMAL
                elif end == text_end + 7 and content[text_end + 5] == 0x18 and content[text_end + 6] < 0x80:
                    kind = content[text_end + 6]
                else:
                    break
                texts.append(content[at + 4 : text_end].decode())
                scores += content[text_end + 1 : text_end + 5]
                types.append(kind)
                at = end
        except UnicodeDecodeError as error:
            raise InputError(f"piece {len(texts)} is not UTF-8 ({error})") from error
        self.scores = array("f", struct.unpack(f"<{len(texts)}f", scores))
        return at

    def add(self, message: bytes) -> None:
        """Read any piece."""
        id = len(self.texts)
        text, score, kind = b"", 0.0, NORMAL
        for field in fields(message, f"piece {id}"):
            if field.number == _TEXT and field.wire_type == BYTES:
                text = cast(bytes, field.value)
            elif field.number == _SCORE and field.wire_type == FIXED32:
                score = struct.unpack("<f", struct.pack("<I", field.value))[0]
            elif field.number == _TYPE and field.wire_type == VARINT:
                kind = cast(int, field.value)
            elif field.number <= _TYPE:
                raise InputError(f"piece {id}: field {field.number} has the wire type {field.wire_type}")
            else:
                self.extras[id] = self.extras.get(id, b"") + message[field.begin : field.end]
        if kind > BYTE:
            raise InputError(f"piece {id} has the type {kind}; types are 1 to 6")
        try:
            self.texts.append(text.decode())
        except UnicodeDecodeError as error:
            raise InputError(f"piece {id} is not UTF-8 ({error})") from error
        self.scores.append(score)
        self.types.append(kind)


def _bytes_of(field: Field, name: str) -> bytes:
    if not isinstance(field.value, bytes):
        raise InputError(f"{name} is a number, not a message; the file is damaged, or is no SentencePiece model")
    return field.value


def _settings(message: bytes, wanted: Mapping[str, _Setting], name: str) -> dict[str, Any]:
    """Return the values of some fields of a message, by name."""
    names = {setting.number: key for key, setting in wanted.items()}
    values = {key: setting.default for key, setting in wanted.items()}
    for field in fields(message, name):
        key = names.get(field.number)
        if key is None:
            continue
        default = wanted[key].default
        if isinstance(default, (str, bytes)) != (field.wire_type == BYTES) or field.wire_type in (1, FIXED32):
            raise InputError(f"{name}.{key} has the wire type {field.wire_type}; the file is damaged")
        if isinstance(default, str):
            try:
                values[key] = cast(bytes, field.value).decode()
            except UnicodeDecodeError as error:
                raise InputError(f"{name}.{key} is not UTF-8 ({error})") from error
        elif isinstance(default, bytes):
            values[key] = field.value
        else:
            number = signed(cast(int, field.value))
            values[key] = number != 0 if isinstance(default, bool) else number
    return values


def _refuse_denormalizer(message: bytes) -> None:
    if any(field.number == _CHARSMAP and field.value for field in fields(message, "denormalizer_spec")):
        raise InputError("denormalizer_spec changes decoded text, which is not supported")


def _boundaries(model: PieceModel, trainer: Mapping[str, Any]) -> Boundaries:
    """Return what begins and ends a text: the control pieces that trainer_spec names.

    A model does not say whether the first is put in front of a text. That is done where its name is a known one.
    """
    controls = {
        piece: id for id, (piece, kind) in enumerate(zip(model.pieces, model.types, strict=True)) if kind == CONTROL
    }
    bos, eos = controls.get(trainer["bos_piece"]), controls.get(trainer["eos_piece"])
    begins = bos is not None and trainer["bos_piece"] in BEGIN_NAMES
    source = "trainer_spec"
    return Boundaries(
        bos_id=bos,
        eos_ids=() if eos is None else (eos,),
        eos_id=eos,
        prefix_ids=(bos,) if bos is not None and begins else (),
        bos_from=source,
        eos_from=source,
        prefix_from=KNOWN_NAME if begins else source,
    )


def render(vocabulary: Vocabulary) -> bytes:
    """Return the content of a model file that gives the same ids in ``sentencepiece``.

    Raises:
        InputError: When the vocabulary merges bytes, or an added token cannot be expressed.
    """
    if not isinstance(vocabulary, PieceVocabulary):
        raise InputError(
            f"{vocabulary.name} merges bytes, but a SentencePiece model merges characters; write a tokenizer.json"
        )
    if vocabulary.model.normalizer.add_dummy_prefix and vocabulary.model.normalizer.prefix_unless_space:
        raise InputError(
            f"{vocabulary.name} puts no space in front of a text that begins with one (Metaspace), but sentencepiece"
            " does; write a tokenizer.json"
        )
    model = with_scores(vocabulary)
    file = ModelFile(**model.file) if model.file is not None else ModelFile()
    if file.content and _is_unchanged(vocabulary, file):
        return file.content
    parts = [
        _piece(piece, score, kind, file.extras.get(id, b""))
        for id, (piece, score, kind) in enumerate(zip(model.pieces, model.scores.tolist(), model.types, strict=True))
    ]
    parts += [_piece(piece, 0.0, kind, b"") for piece, kind in _new_pieces(vocabulary)]
    trainer = _trainer(vocabulary, file.trainer, new_file=model.file is None)
    normalizer = file.normalizer if model.file is not None else _normalizer(model.normalizer)
    parts += [encode_bytes(_TRAINER, trainer), encode_bytes(_NORMALIZER, normalizer), file.others]
    return b"".join(parts)


def _is_unchanged(vocabulary: PieceVocabulary, file: ModelFile) -> bool:
    said = _boundaries(vocabulary.model, _settings(file.trainer, _TRAINER_FIELDS, "trainer_spec"))
    bounds = vocabulary.boundaries
    own = tuple(piece_tokens(vocabulary.model))
    return vocabulary.added_tokens == own and (bounds.bos_id, bounds.eos_id) == (said.bos_id, said.eos_id)


def _piece(piece: str, score: float, kind: int, extra: bytes) -> bytes:
    message = encode_bytes(_TEXT, piece.encode()) + encode_float(_SCORE, score)
    if kind != NORMAL:
        message += encode_varint(_TYPE, kind)
    return encode_bytes(_PIECE, message + extra)


def _new_pieces(vocabulary: PieceVocabulary) -> Iterable[tuple[str, int]]:
    """Return the text and type of the added tokens that follow the pieces."""
    count = len(vocabulary.model.pieces)
    new = {}
    for token in vocabulary.added_tokens:
        flags = [flag for flag in ("lstrip", "rstrip", "single_word", "normalized") if getattr(token, flag)]
        if flags:
            raise InputError(
                f"the {token.kind} token {token.content!r} has {flags[0]} set, which a SentencePiece model cannot"
                " express"
            )
        if token.id < count:
            if vocabulary.model.pieces[token.id] != token.content:
                raise InputError(
                    f"the {token.kind} token {token.content!r} has the id of the piece"
                    f" {vocabulary.model.pieces[token.id]!r}; a SentencePiece model has one piece for each id"
                )
            if not token.special and vocabulary.model.types[token.id] != USER_DEFINED:
                raise InputError(
                    f"the added token {token.content!r} is found in every text, unlike a piece; write a tokenizer.json"
                )
            continue
        if token.id in new:
            raise InputError(
                f"two added tokens have the id {token.id}; a SentencePiece model has one piece for each id"
            )
        new[token.id] = (token.content, CONTROL if token.special else USER_DEFINED)
    if new and sorted(new) != list(range(count, count + len(new))):
        raise InputError(f"the ids of the added tokens do not follow each other from {count} on, as those of pieces do")
    return [new[id] for id in sorted(new)]


def _trainer(vocabulary: PieceVocabulary, message: bytes, new_file: bool) -> bytes:
    """Return trainer_spec: what the file said, and what begins and ends a text."""
    model = vocabulary.model
    count = len(model.pieces) + len(list(_new_pieces(vocabulary)))
    settings: dict[int, bytes] = {}
    if new_file:
        settings[3] = encode_varint(3, _BPE)
        settings[24] = encode_varint(24, model.normalizer.whitespace_as_suffix)
        settings[35] = encode_varint(35, model.byte_fallback)
        settings[40] = encode_varint(40, model.unknown_id)
        settings[44] = encode_bytes(44, model.unknown_surface.encode())
        settings[45] = encode_bytes(45, model.pieces[model.unknown_id].encode())
    if new_file or count > len(model.pieces):
        settings[4] = encode_varint(4, count)
    said = _settings(message, _TRAINER_FIELDS, "trainer_spec")
    bounds = vocabulary.boundaries
    texts = {token.id: token.content for token in vocabulary.added_tokens}
    before = _boundaries(model, said)
    for id, old, number, piece_number in (
        (bounds.bos_id, before.bos_id, 41, 46),
        (bounds.eos_id, before.eos_id, 42, 47),
    ):
        if (new_file or id != old) and id in texts:
            settings[number] = encode_varint(number, id)
            settings[piece_number] = encode_bytes(piece_number, texts[id].encode())
        elif new_file or id != old:
            settings[number] = encode_varint(number, -1)
    kept = b"".join(message[field.begin : field.end] for field in fields(message) if field.number not in settings)
    return kept + b"".join(settings.values())


def _normalizer(normalizer: PieceNormalizer) -> bytes:
    """Return normalizer_spec."""
    return (
        encode_bytes(1, normalizer.name.encode())
        + encode_bytes(_CHARSMAP, normalizer.map)
        + encode_varint(3, normalizer.add_dummy_prefix)
        + encode_varint(4, normalizer.remove_extra_whitespaces)
        + encode_varint(5, normalizer.escape_whitespaces)
    )
