"""Encoding and decoding, with the interface of tiktoken's ``Encoding`` and its ids."""

from __future__ import annotations

import operator
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from bpe.boundaries import overruled
from bpe.errors import InputError
from bpe.offsets import CONTINUATION, truncated
from bpe.patterns import Pattern, find_pattern
from bpe.special import SpecialMatchers, raise_disallowed
from bpe.text import as_bytes
from bpe.tokenizer_batches import NO_TOKENS, BatchTokenizer
from bpe.unstable import encode_truncated, split_unstable
from bpe.vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from typing_extensions import Buffer

    from bpe.display import ShownText


class Tokenizer(BatchTokenizer):
    """A vocabulary that encodes text to ids and decodes ids to text.

    The ids are those of ``tiktoken.Encoding``, built from the same ranks, pattern and special tokens. Any number of
    threads may use the same tokenizer at once.

    >>> ranks = {bytes([byte]): byte for byte in range(256)} | {b"he": 256, b"ll": 257, b"hell": 258}
    >>> tokenizer = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={"<|end|>": 259})
    >>> tokenizer.encode("hello")
    [258, 111]
    >>> tokenizer.decode([258, 111])
    'hello'
    >>> tokenizer.encode("hello<|end|>", allowed_special="all")
    [258, 111, 259]
    """

    def __init__(
        self,
        name: str,
        *,
        pat_str: str,
        mergeable_ranks: Mapping[bytes, int],
        special_tokens: Mapping[str, int],
        explicit_n_vocab: int | None = None,
        merges_only: bool = False,
    ) -> None:
        """Create a tokenizer from the arguments of ``tiktoken.Encoding``.

        Args:
            name: What to call the tokenizer.
            pat_str: The split pattern: a regular expression, or the name of a known pattern ("llama3", "gpt2", ...).
            mergeable_ranks: The rank of each token, which is also its id. All 256 single bytes must be tokens, unless
                `merges_only`.
            special_tokens: The id of each string that is never split or merged.
            explicit_n_vocab: The expected number of tokens, special tokens included, with no id unused. Default: not
                checked.
            merges_only: Whether to encode as ``tokenizers`` does by default instead of tiktoken: tokens that no merge
                leads to are never used, not even for a whole pretoken, and bytes without a token are dropped from the
                text.

        Raises:
            ValueError: When a byte has no token, a rank or an id occurs twice, or the count differs from
                `explicit_n_vocab`.
        """
        pattern = find_pattern(pat_str)
        self._wrap(Vocabulary.from_ranks(name, pattern, mergeable_ranks, special_tokens, merges_only))
        if explicit_n_vocab is not None:
            count = self.vocabulary.token_count
            if count != explicit_n_vocab or self.max_token_value != explicit_n_vocab - 1:
                raise ValueError(
                    f"explicit_n_vocab is {explicit_n_vocab}, but there are {count} tokens"
                    f" and the highest id is {self.max_token_value}"
                )

    @classmethod
    def from_vocabulary(cls, vocabulary: Vocabulary) -> Tokenizer:
        """Create a tokenizer that encodes and decodes with a vocabulary.

        >>> from bpe.vocabulary import Vocabulary
        >>> ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256}
        >>> vocabulary = Vocabulary.from_ranks("tiny", find_pattern("gpt2"), ranks, special_tokens={})
        >>> Tokenizer.from_vocabulary(vocabulary).encode("abc")
        [256, 99]
        """
        self = cls.__new__(cls)
        self._wrap(vocabulary)
        return self

    def _wrap(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.special_matchers = SpecialMatchers(vocabulary)
        if vocabulary.library is not None:
            self._core = vocabulary.library  # type: ignore[assignment]
            super().__init__(None, vocabulary.special_matcher, None)
            return
        self._core = vocabulary.encoder
        super().__init__(self._core, vocabulary.special_matcher, vocabulary.always_added)

    # bpe.formats and bpe.locate are imported when they are first used: json, gzip, hashlib and dataclasses, which they
    # need, take longer to import than all of this package.

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        pattern: str | None = None,
        special_tokens: Mapping[str, int] | Sequence[str] | None = None,
    ) -> Tokenizer:
        """Load a tokenizer from a file, or from the tokenizer file in a directory.

        The format is detected from the content: a tokenizer.json, a tekken.json, tiktoken ranks, a GGUF, a
        SentencePiece model or a vocab.txt of BERT. A file of ranks contains neither the pattern nor the special tokens.
        Published files (Llama 3's, cl100k_base, ...) are recognised by
        their hash; for other files, `pattern` is required.

        Args:
            path: The file or directory.
            pattern: The split pattern to use instead of the file's: a name or a regular expression.
            special_tokens: A mapping from text to id: the special tokens to use instead of the file's. Or names to add
                to the special tokens of the file: a name that the file has keeps its id, and the others take the ids
                after the last; an empty sequence means no special tokens. A file of ranks has no special tokens of its
                own; their default is those of the named pattern.

        Raises:
            OSError: When the file cannot be read.
            InputError: When the file is damaged or is not a supported tokenizer; the message says where.
        """
        from bpe.formats import read_vocabulary

        return cls.from_vocabulary(read_vocabulary(path, pattern, special_tokens))

    @classmethod
    def from_name(cls, name: str) -> Tokenizer:
        """Load a tokenizer by a known name such as "llama3", or by its path; see `bpe.locate`.

        Raises:
            InputError: When there is no such file, or the name is unknown or not found on this machine.
        """
        from bpe.locate import locate

        return cls.from_file(locate(name))

    def save(self, path: str | os.PathLike[str], format: Literal["huggingface", "tiktoken"] | None = None) -> None:
        """Save the tokenizer to a file.

        A tokenizer.json contains everything except the tokens that end a generated text, which are in the
        generation_config.json beside it. tiktoken's format contains the ranks only.

        Args:
            path: The file to write. An existing file is replaced once the new one is complete.
            format: The file format. Default: by the suffix of `path`: .json for Hugging Face's tokenizer.json; .model
                or .tiktoken for tiktoken's ranks.

        Raises:
            OSError: When the file cannot be written.
            InputError: When the format is unknown, or cannot express this tokenizer.
        """
        from bpe.formats import write_vocabulary

        write_vocabulary(self.vocabulary, path, format)

    # How it looks. bpe.display is imported when it is first used: html takes longer to import than this file.

    def show(self, text: str | bytes, *, allowed_special: Literal["all"] | AbstractSet[str] = NO_TOKENS) -> ShownText:
        """Return a text with its tokens marked: by colors in a notebook and on a terminal, by | elsewhere.

        Args:
            text: Any str, or bytes.
            allowed_special: The special tokens that become their ids, or "all"; others are ordinary text.

        >>> ranks = {bytes([byte]): byte for byte in range(256)} | {b"he": 256, b"ll": 257, b"hell": 258}
        >>> Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={}).show("hello hello")
        hell|o| |hell|o
        """
        from bpe.display import ShownText

        ids = self.encode(text, allowed_special=allowed_special, disallowed_special=())
        return ShownText(ids, self.shown_tokens(ids))

    def shown_tokens(self, ids: Iterable[int]) -> list[bytes]:
        """Return each token as it is shown to a person: its bytes, or what another library writes it as.

        >>> ranks = {bytes([byte]): byte for byte in range(256)}
        >>> Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={}).shown_tokens([97, 32])
        [b'a', b' ']
        """
        library = self.vocabulary.library
        if library is None:
            return self.decode_tokens_bytes(ids)
        return [library.text_of(id).encode("utf-8", "replace") for id in ids]

    def __len__(self) -> int:
        """The number of rows that a model needs for the ids: the highest id plus one, as `n_vocab`."""
        return self.n_vocab

    def __repr__(self) -> str:
        from bpe.display import described

        return described(self.vocabulary)

    def _repr_html_(self) -> str:
        from bpe.display import card

        return card(self.vocabulary)

    # Encoding

    # The core defines encode_ordinary: for a single word, a Python function around it would take as long again.

    def encode(
        self,
        text: str | bytes,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = NO_TOKENS,
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> list[int]:
        """Encode a text to ids. A special token in the text raises, unless it is allowed or not disallowed.

        Args:
            text: Any str, or bytes.
            allowed_special: The special tokens that become their ids, or "all". Where several begin at the same place,
                the longest is used.
            disallowed_special: The special tokens that raise. Default: all that are not allowed; with ``()``, special
                tokens that are not allowed are encoded as ordinary text.

        Returns:
            The ids.

        Raises:
            TypeError: When `allowed_special` is neither "all" nor a set of str, or `disallowed_special` is not a
                collection of str. A str other than "all" counts as the collection of its characters, as in tiktoken.
            ValueError: When the text contains a disallowed special token.
        """
        if allowed_special is NO_TOKENS and disallowed_special == "all":  # as by default, and fast
            return self._encode_without_special(text)
        return self._core.encode(text, self.special_matchers.allowed_in(text, allowed_special, disallowed_special))

    def encode_to_numpy(
        self,
        text: str | bytes,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = NO_TOKENS,
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> npt.NDArray[np.uint32]:
        """Encode a text as `encode` does, into an array.

        Args:
            text: Any str, or bytes.
            allowed_special: As in `encode`.
            disallowed_special: As in `encode`.

        Returns:
            The ids. [tokens], uint32

        Raises:
            TypeError: As in `encode`.
            ValueError: When the text contains a disallowed special token.
        """
        if allowed_special is NO_TOKENS:  # as by default, and fast
            if not disallowed_special:
                return self._ordinary_to_numpy(text)
            if disallowed_special == "all":
                return self._without_special_to_numpy(text)
        added = self.special_matchers.allowed_in(text, allowed_special, disallowed_special)
        return self._core.encode_to_numpy(text, added)

    def encode_with_unstable(
        self,
        text: str,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = NO_TOKENS,
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> tuple[list[int], list[list[int]]]:
        """Encode a text that may continue: the ids that are settled, and the possible beginnings of the others.

        The stable ids stay the same whatever text follows. Each completion, appended to them, decodes to bytes that
        begin with `text`. The rules are tiktoken's, where this method is experimental as well.

        Args:
            text: The text so far.
            allowed_special: As in `encode`.
            disallowed_special: As in `encode`.

        Returns:
            The stable ids, and the completions in no particular order.

        Raises:
            InputError: When another library encodes, which cannot tell what is settled, or when the vocabulary changes
                text before it encodes it: completions of the text are then not completions of what is encoded.
            ValueError: When the text contains a disallowed special token.
        """
        self._refuse_library("encode_with_unstable", "encode the text again when it is longer")
        if self.vocabulary.changes_text:
            raise InputError(
                f"{self.name} changes text before it is split, so the rules of encode_with_unstable, which are"
                " tiktoken's, do not apply; use StreamEncoder"
            )
        added = self.special_matchers.allowed_in(text, allowed_special, disallowed_special)
        return split_unstable(self.vocabulary, self._core.encode, as_bytes(text), added)

    def limit_cache(self, megabytes: int) -> None:
        """Limit the memory of the pretoken caches, and clear them. The ids do not depend on it.

        Args:
            megabytes: The limit in units of 2**20 bytes, at least 4. Before the first call it is 64. The first thread
                gets half. The other half is shared by as many more threads as there are processors, with at least 2 MB
                for each; any further thread adds 2 MB.

        Raises:
            ValueError: When `megabytes` is less than 4.
        """
        if megabytes < 4:
            raise ValueError(f"megabytes is {megabytes}; at least 4 are needed")
        self._core.limit_cache(megabytes << 20)

    def count(self, text: str | bytes) -> int:
        """Return the number of ids that `encode_ordinary` would return."""
        return self._core.count(text, self.vocabulary.always_added)

    def truncate(self, text: str, max_tokens: int, *, side: Literal["left", "right"] = "right") -> str:
        """Cut a text so that `encode_ordinary` returns at most `max_tokens` ids.

        The cut is at the edge of a token. Where that would split a character, it is at the next edge of a character
        that keeps less. The rest is encoded again, because a part of a text may take more tokens than it did within
        the whole; if it takes too many, one token less is kept.

        Args:
            text: The text. Lone surrogates become U+FFFD.
            max_tokens: The highest number of ids.
            side: Where to cut: "right" keeps the beginning, "left" keeps the end.

        Returns:
            The part of the text that is kept.

        Raises:
            ValueError: When `max_tokens` is negative, or `side` is neither "left" nor "right".

        >>> ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256}
        >>> tokenizer = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={})
        >>> tokenizer.truncate("abcé", 3), tokenizer.truncate("abcé", 3, side="left")
        ('abc', 'cé')
        """
        if max_tokens < 0:
            raise ValueError(f"max_tokens is {max_tokens}; it cannot be negative")
        if side not in ("left", "right"):
            raise ValueError(f"side is {side!r}; it must be 'left' or 'right'")
        return truncated(self.vocabulary, text, max_tokens, side)

    def encode_with_offsets(
        self, text: str, *, unit: Literal["characters", "bytes"] = "characters"
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Encode a text as `encode_ordinary` does, and return the span of each token in the text.

        Args:
            text: The text.
            unit: The unit of the spans. In "bytes" of UTF-8 they are adjacent, except for `unknown_bytes` and for text
                that the split pattern leaves out. In "characters" a token that contains a part of a character spans the
                whole character, so the spans of neighbours may overlap. Where a normalizer or the split pattern changes
                the text, a span is the part of the original text that the token comes from; that of a token of inserted
                characters is empty.

        Returns:
            The ids, and the begin and end of each.

        Raises:
            ValueError: When `unit` is neither "characters" nor "bytes".

        >>> ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256}
        >>> tokenizer = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={})
        >>> tokenizer.encode_with_offsets("abé")
        ([256, 195, 169], [(0, 2), (2, 3), (2, 3)])
        """
        if unit not in ("characters", "bytes"):
            raise ValueError(f"unit is {unit!r}; it must be 'characters' or 'bytes'")
        return self._core.encode_with_places(text, self.vocabulary.always_added, unit == "characters")

    def encode_single_token(self, text_or_bytes: str | bytes) -> int:
        """Return the id of the token, ordinary or added, with exactly this text.

        Raises:
            KeyError: When there is no such token.
            UnicodeEncodeError: When a str contains a surrogate.
        """
        token = _strict_bytes(text_or_bytes)
        id = self._core.find(token) if token else None
        if id is None:
            try:
                id = self.vocabulary.added_ids[token.decode("utf-8")]
            except (KeyError, UnicodeDecodeError):
                raise KeyError(token) from None
        return id

    def _encode_slowly(self, text: str | Buffer) -> list[int]:
        """Called by the core's `encode_ordinary` where the core does not encode."""
        return self._core.encode(text, self.vocabulary.always_added)

    _raise_disallowed = staticmethod(raise_disallowed)  # called by the core as well

    # Decoding

    def decode_bytes(self, tokens: Sequence[int] | npt.NDArray[np.uint32]) -> bytes:
        """Decode ids to bytes.

        Raises:
            KeyError: When the vocabulary has no token with one of the ids.
            OverflowError: When an id is negative or has more than 32 bits.
        """
        return self._core.decode_bytes(tokens)

    def decode(self, tokens: Sequence[int] | npt.NDArray[np.uint32], errors: str = "replace") -> str:
        """Decode ids to text.

        Args:
            tokens: The ids.
            errors: What to do with bytes that are not UTF-8, as in `bytes.decode`. Default: replace them by U+FFFD.

        Raises:
            KeyError: When the vocabulary has no token with one of the ids.
            OverflowError: When an id is negative or has more than 32 bits.
        """
        return self._decode(tokens, errors)

    def decode_single_token_bytes(self, token: int) -> bytes:
        """Return the bytes of one token.

        Raises:
            KeyError: When the vocabulary has no token with this id.
        """
        return self._core.bytes_of(token)

    def token_sizes(self) -> npt.NDArray[np.uint32]:
        """Return the length of each token in bytes, by id; 0 for special tokens and unused ids. [n_vocab], uint32"""
        sizes = self._core.token_sizes(self.n_vocab)
        for token in self.vocabulary.added_tokens:
            if not token.special:
                sizes[token.id] = len(self._core.bytes_of(token.id))
        return sizes

    def decode_tokens_bytes(self, tokens: Iterable[int]) -> list[bytes]:
        """Return the bytes of each token.

        Raises:
            KeyError: When the vocabulary has no token with one of the ids.
        """
        return [self._core.bytes_of(token) for token in tokens]

    def decode_with_offsets(self, tokens: Sequence[int]) -> tuple[str, list[int]]:
        """Decode ids to text, and return for each token the index of the first character that contains its bytes.

        The text is that of the tokens, joined: a space that `decode` removes in front of a text is kept.

        Raises:
            UnicodeDecodeError: When the bytes of the tokens are not UTF-8.
        """
        parts = self.decode_tokens_bytes(tokens)
        text = b"".join(parts).decode("utf-8")
        offsets = []
        characters = 0  # that have begun
        for part in parts:
            offsets.append(max(0, characters - (part[0] in CONTINUATION)))
            characters += sum(byte not in CONTINUATION for byte in part)
        return text, offsets

    # The vocabulary

    @property
    def name(self) -> str:
        """What the tokenizer is called."""
        return self.vocabulary.name

    @property
    def pattern(self) -> Pattern:
        """How text is split into pretokens."""
        return self.vocabulary.pattern

    @property
    def merges_only(self) -> bool:
        """Whether ids may differ from tiktoken's, because a token is unreachable or a byte has no token."""
        return self.vocabulary.merges_only

    @property
    def unknown_bytes(self) -> bytes:
        """The bytes without a token, which are dropped from a text before it is encoded. Empty unless `merges_only`."""
        return self.vocabulary.unknown_bytes

    @property
    def max_token_value(self) -> int:
        """The highest id."""
        return self.vocabulary.max_token_value

    @property
    def n_vocab(self) -> int:
        """The highest id plus one."""
        return self.vocabulary.n_vocab

    @cached_property
    def special_tokens_set(self) -> set[str]:
        """The texts of the special tokens."""
        return set(self.vocabulary.special_tokens)

    @property
    def special_tokens(self) -> dict[str, int]:
        """The id of each special token, by its text; a copy."""
        return dict(self.vocabulary.special_tokens)

    @property
    def eot_token(self) -> int:
        """The id of <|endoftext|>.

        Raises:
            KeyError: When there is no such special token.
        """
        return self.vocabulary.special_tokens["<|endoftext|>"]

    def is_special_token(self, token: int) -> bool:
        """Return whether an id is that of a special token.

        Raises:
            AssertionError: When `token` is not an integer, as in tiktoken.
        """
        try:
            return operator.index(token) in self._special_token_values
        except TypeError:
            raise AssertionError(f"expected the id of a token, not {token!r}") from None

    @property
    def bos_id(self) -> int | None:
        """The id of the token that begins a text, which need not be put in front; None if there is none."""
        return self.vocabulary.boundaries.bos_id

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The ids that end a generated text. Training data has the first of them after each document."""
        return self.vocabulary.boundaries.eos_ids

    @property
    def add_bos(self) -> bool:
        """Whether a text gets `prefix_ids` in front, usually `bos_id`."""
        return self.vocabulary.boundaries.add_bos

    @property
    def add_eos(self) -> bool:
        """Whether a complete text gets an end token behind. A prompt, which is to be continued, never does."""
        return self.vocabulary.boundaries.add_eos

    @property
    def prefix_ids(self) -> list[int]:
        """The ids that are put in front of a text. The methods that encode do not add them."""
        return list(self.vocabulary.boundaries.prefix_ids)

    def with_special_tokens(self, names: Sequence[str]) -> Tokenizer:
        """Return a tokenizer with more special tokens. All ids stay; new names take the ids after the last.

        As in ``tokenizers``, a name that is the text of a token keeps the token's id.

        Args:
            names: The texts of the special tokens.

        Raises:
            InputError: When `names` is a str, or a name is empty or given twice.

        >>> ranks = {bytes([byte]): byte for byte in range(256)}
        >>> tokenizer = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={"<|a|>": 300})
        >>> tokenizer.with_special_tokens(["<|b|>"]).special_tokens
        {'<|a|>': 300, '<|b|>': 301}
        """
        return type(self).from_vocabulary(self.vocabulary.with_special_tokens(names))

    def with_boundaries(self, *, bos: bool | None = None, end_tokens: Iterable[str | int] | None = None) -> Tokenizer:
        """Return a tokenizer that begins or ends texts differently and shares everything else with this one.

        Args:
            bos: Whether the token that begins a text is put in front. None leaves it as it is.
            end_tokens: The tokens that end a text, by text or id, instead of `eos_ids`. None leaves them.

        Raises:
            InputError: When no token is known to begin a text, or there is no such end token.

        >>> ranks = {bytes([byte]): byte for byte in range(256)}
        >>> special = {"<s>": 256, "<|turn_end|>": 257}
        >>> tokenizer = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens=special)
        >>> tokenizer.prefix_ids, tokenizer.eos_ids
        ([256], ())
        >>> changed = tokenizer.with_boundaries(bos=False, end_tokens=["<|turn_end|>"])
        >>> changed.prefix_ids, changed.eos_ids
        ([], (257,))
        """
        ends = None if end_tokens is None else [self._end_id(token) for token in end_tokens]
        boundaries = overruled(self.vocabulary.boundaries, bos=bos, eos_ids=ends)
        return type(self).from_vocabulary(self.vocabulary.with_boundaries(boundaries))

    def _end_id(self, token: str | int) -> int:
        """The id of an end token that a caller gives by text or id."""
        if isinstance(token, int) and not isinstance(token, bool):
            if 0 <= token < self.n_vocab:
                return token
            raise InputError(f"the end token {token} is not an id of {self.name}, whose ids are below {self.n_vocab}")
        added = {added.content: added.id for added in self.vocabulary.added_tokens}
        if isinstance(token, str) and token in added:
            return added[token]
        try:
            return self.encode_single_token(token)  # type: ignore[arg-type]
        except (KeyError, TypeError):
            raise InputError(
                f"{self.name} has no token {token!r} that could end a text; give the text or the id of one of its"
                f" tokens, for example one of {', '.join([*added][:4]) or 'those that `bpe show` lists'}"
            ) from None

    @property
    def mergeable_ranks(self) -> dict[bytes, int]:
        """The rank of each token, in rank order; a copy.

        Raises:
            InputError: When the tokens have no ranks, because another algorithm than BPE encodes.
        """
        self._refuse_library("mergeable_ranks", "decode_single_token_bytes(id) returns the bytes of a token")
        return dict(self.vocabulary.ranks)

    def token_byte_values(self) -> list[bytes]:
        """Return the bytes of all tokens except the special tokens, sorted."""
        return list(self.vocabulary.sorted_tokens)

    # tiktoken's private names, which its documentation uses to extend an encoding, and programs to encode bytes.

    def _encode_bytes(self, text: bytes) -> list[int]:
        """Encode bytes that may be a truncated text; see `bpe.unstable.encode_truncated`.

        Raises:
            TypeError: When `text` is not bytes.
        """
        if isinstance(text, str):
            raise TypeError("expected bytes, not str")
        self._refuse_library("_encode_bytes", "encode(text) encodes a text")
        return encode_truncated(self.vocabulary, self._core.encode, as_bytes(text))

    def _encode_single_piece(self, text_or_bytes: str | bytes) -> list[int]:
        """Encode a text as one pretoken, without splitting it.

        Raises:
            UnicodeEncodeError: When a str contains a surrogate.
        """
        self._refuse_library("_encode_single_piece", "encode(text) encodes a text")
        return self._core.encode_pretokens([_strict_bytes(text_or_bytes)])

    def _encode_only_native_bpe(self, text: str) -> list[int]:
        """Encode a text as `encode_ordinary` does, but split it with the ``regex`` module, as tiktoken does here.

        The module's Unicode version is newer than tiktoken's. A pattern of several steps is split by the core.

        Raises:
            TypeError: When `text` is not a str.
            UnicodeEncodeError: When the text contains a surrogate.
        """
        self._refuse_library("_encode_only_native_bpe", "encode_ordinary(text) encodes a text")
        if not isinstance(text, str):
            raise TypeError(f"expected str, not {type(text).__name__}")
        if self.pattern.steps is not None or self.vocabulary.characters is not None:
            return self._core.encode_pretokens(self.vocabulary.splitter.split(text.encode()))
        import regex

        return self._core.encode_pretokens(match.group().encode() for match in regex.finditer(self.pattern.text, text))

    def _refuse_library(self, name: str, remedy: str) -> None:
        if self.vocabulary.library is not None:
            raise InputError(
                f"{self.name} is a vocabulary of {self.vocabulary.algorithm}, not of BPE, and has no {name}; {remedy}"
            )

    @property
    def _pat_str(self) -> str:
        return self.pattern.text

    @property
    def _mergeable_ranks(self) -> dict[bytes, int]:
        return self.vocabulary.ranks

    @property
    def _special_tokens(self) -> dict[str, int]:
        return self.vocabulary.special_tokens

    @cached_property
    def _special_token_values(self) -> set[int]:
        return set(self.vocabulary.special_tokens.values())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_vocabulary, (self.vocabulary,)


def _strict_bytes(text: str | bytes) -> bytes:
    """The UTF-8 of a str without surrogates, or the bytes."""
    return text.encode("utf-8") if isinstance(text, str) else as_bytes(text)
