"""BERT's vocab.txt: WordPiece tokens, one on each line, whose number is the id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bpe.errors import InputError
from bpe.formats.library_json import read_json_vocabulary
from bpe.vocabulary import AddedToken, Vocabulary

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_BEGIN = 1 << 20  # bytes in which to look for [UNK]; it is among the first 103 lines of published files


def matches(content: bytes) -> bool:
    """Return whether one of the first lines is BERT's unknown token."""
    return b"\n[UNK]\n" in b"\n" + content[:_BEGIN].replace(b"\r\n", b"\n") + b"\n"


def read(
    content: bytes, name: str, pattern: str | None, special_tokens: Mapping[str, int] | Sequence[str] | None
) -> Vocabulary:
    """Read a vocab.txt.

    Text is normalized and split as ``BertTokenizer`` of transformers does. The file does not say whether the vocabulary
    tells capital letters apart: it does if a token that is not special has one. [CLS] and [SEP] are put around a text.

    Args:
        content: The content of the file.
        name: The name of the file, which names the vocabulary.
        pattern: None: the format has no split pattern.
        special_tokens: Names of special tokens to add to those of the file, or an empty sequence for none.

    Raises:
        InputError: When the file is not UTF-8, a token occurs twice, or a pattern is given.
    """
    if pattern is not None:
        raise InputError("a vocab.txt has no split pattern; leave out the pattern")
    try:
        lines = content.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"byte {error.start} is not valid UTF-8") from None
    lines = lines[:-1] if lines[-1] == "" else lines
    ids = {line: id for id, line in enumerate(lines)}
    if len(ids) < len(lines):
        twice = next(line for id, line in enumerate(lines) if ids[line] != id)
        raise InputError(f"line {lines.index(twice) + 1}: the token {twice!r} occurs twice")
    is_cased = any(line != line.lower() for line in lines if not (line.startswith("[") and line.endswith("]")))
    added = [AddedToken(token, ids[token]) for token in _SPECIAL if token in ids]
    return read_json_vocabulary(_as_json(ids, is_cased), name.removesuffix(".txt"), added, special_tokens)


def _as_json(ids: dict[str, int], is_cased: bool) -> dict[str, Any]:
    """The tokenizer.json that transformers makes of the file."""
    processor = None
    if "[CLS]" in ids and "[SEP]" in ids:
        processor = {"type": "BertProcessing", "sep": ["[SEP]", ids["[SEP]"]], "cls": ["[CLS]", ids["[CLS]"]]}
    normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": normalizer | {"lowercase": not is_cased},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": processor,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
    }


def render(vocabulary: Vocabulary) -> bytes:
    """Refuse: a vocab.txt leaves out how text is normalized.

    Raises:
        InputError: Always.
    """
    raise InputError(
        f"{vocabulary.name} cannot be written as vocab.txt, which leaves out how text is normalized; save it as .json"
    )
