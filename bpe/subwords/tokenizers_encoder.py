"""Vocabularies of Unigram, WordPiece or whole words in a tokenizer.json or a vocab.txt, encoded by ``tokenizers``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from bpe.errors import InputError
from bpe.offsets import CONTINUATION
from bpe.subwords.encoder import LibraryEncoder, Spans, library
from bpe.subwords.sentencepiece_encoder import SPACE
from bpe.vocabulary import AddedToken

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

ALGORITHMS = {"Unigram": "unigram", "WordPiece": "wordpiece", "WordLevel": "wordlevel"}
"""The algorithms by the "type" of the model of a tokenizer.json."""

_BYTE = re.compile("<0x([0-9A-F]{2})>")
_MOST_COPIES = 64  # for a caller who makes up a new set of allowed tokens for each text
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class TokenizersEncoder(LibraryEncoder):
    """Encodes with ``tokenizers``."""

    package = "tokenizers"
    format = "huggingface"

    def __init__(self, data: dict[str, Any], added: Sequence[AddedToken]) -> None:
        """
        Args:
            data: The tokenizer.json.
            added: The added tokens, instead of those of the file.

        Raises:
            InputError: When the package is not installed, or cannot read the file.
        """
        self.data = {**data, "added_tokens": [_entry(token) for token in sorted(added, key=lambda each: each.id)]}
        self.added = tuple(added)
        self.content = json.dumps(self.data, ensure_ascii=False, indent=2).encode("utf-8", "surrogatepass")
        self.algorithm = ALGORITHMS[data["model"]["type"]]
        self._tokenizer = self._load(self.data)
        self._copies: dict[frozenset[str], Any] = {}
        vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=False)
        ids = {token.id for token in added}
        prefix = data["model"].get("continuing_subword_prefix") if self.algorithm == "wordpiece" else None
        texts = {id: text for text, id in vocabulary.items()}
        tokens = {id: self._bytes_of(text, prefix) for id, text in texts.items() if id not in ids}
        super().__init__(tokens, texts, added)
        for token in added:
            if self._tokenizer.token_to_id(token.content) != token.id:
                raise InputError(
                    f"the added token {token.content!r} has the id {token.id}, but tokenizers gives it"
                    f' {self._tokenizer.token_to_id(token.content)}; put the right id into "added_tokens"'
                )

    def _load(self, data: dict[str, Any]) -> Any:
        """A tokenizer that reads special tokens in a text as text, and adds nothing to it."""
        module = library(self.package, f"a {data['model']['type']} vocabulary")
        data = {**data, "post_processor": None, "truncation": None, "padding": None}
        try:
            tokenizer = module.Tokenizer.from_str(json.dumps(data))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of tokenizers is not an Exception
            raise InputError(f"the tokenizers package cannot read the file ({' '.join(str(error).split())})") from None
        tokenizer.encode_special_tokens = True
        return tokenizer

    def _bytes_of(self, text: str, prefix: str | None) -> bytes:
        if self.algorithm == "unigram":
            if self.data["model"].get("byte_fallback") and (match := _BYTE.fullmatch(text)):
                return bytes([int(match[1], 16)])
            return text.replace(SPACE, " ").encode("utf-8", "replace")
        return (text.removeprefix(prefix) if prefix else text).encode("utf-8", "replace")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.data, self.added)

    def with_added(self, added: Sequence[AddedToken]) -> TokenizersEncoder:
        return TokenizersEncoder(self.data, added)

    def matcher(self, allowed: AbstractSet[str]) -> frozenset[str]:
        return frozenset(token.content for token in self.added if token.special and token.content in allowed)

    def _recognising(self, allowed: frozenset[str] | None) -> Any:
        """The tokenizer that finds these special tokens in a text: for it, they are not special."""
        if not allowed:
            return self._tokenizer
        if allowed not in self._copies:
            if len(self._copies) >= _MOST_COPIES:
                self._copies.clear()
            entries = [
                entry | {"special": False} if entry["content"] in allowed else entry
                for entry in self.data["added_tokens"]
            ]
            self._copies[allowed] = self._load({**self.data, "added_tokens": entries})
        return self._copies[allowed]

    def encode_str(self, text: str, added: frozenset[str] | None) -> list[int]:
        ids: list[int] = self._encodings([text], added)[0].ids
        return ids

    def encode_many(self, texts: Sequence[str], added: frozenset[str] | None, threads: int) -> list[list[int]]:
        return [encoding.ids for encoding in self._encodings(texts, added)]

    def spans_of(self, text: str, added: frozenset[str] | None) -> Spans:
        (encoding,) = self._encodings([text], added)
        places = [place for place, byte in enumerate(text.encode()) if byte not in CONTINUATION]
        places.append(len(text.encode()))
        return [(places[begin], places[end]) for begin, end in encoding.offsets]

    def _encodings(self, texts: Sequence[str], added: frozenset[str] | None) -> list[Any]:
        tokenizer = self._recognising(added)
        try:
            encodings: list[Any] = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            raise InputError(f"the tokenizers package cannot encode the text ({error})") from None
        return encodings

    def decode_bytes(self, ids: Sequence[int] | npt.NDArray[np.uint32]) -> bytes:
        decoded: str = self._tokenizer.decode(self.checked_ids(ids), skip_special_tokens=False)
        return decoded.encode("utf-8", "replace")


def _entry(token: AddedToken) -> dict[str, Any]:
    return {"id": token.id, "content": token.content} | {flag: getattr(token, flag) for flag in _FLAGS}
