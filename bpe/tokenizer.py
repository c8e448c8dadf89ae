"""Tokenizer: text -> ids -> text, with the interface of tiktoken's ``Encoding`` and its ids."""

from __future__ import annotations

import os
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, overload

from bpe import _core
from bpe.errors import InputError
from bpe.patterns import Pattern, find_pattern
from bpe.text import as_bytes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import regex
    from typing_extensions import Buffer

_CONTINUATION = bytes(range(0x80, 0xC0))  # the bytes of UTF-8 that go on with a character
_NO_SCANNER = 0  # what the core is given for a pattern that it has no scanner for; it is then never used


class Tokenizer(_core.TokenizerBase):
    """A vocabulary, a split pattern and special tokens: all it takes to turn text into ids and back.

    The ids are those of ``tiktoken.Encoding`` built from the same four things. Any number of threads may use one
    tokenizer at once.

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
        """
        Args:
            name: what to call it.
            pat_str: the split pattern: a regular expression, or the name of a known one ("llama3", "gpt2", ...).
            mergeable_ranks: token bytes -> rank, which is the token's id as well. All 256 single bytes are among them,
                unless `merges_only`.
            special_tokens: string -> id, for the strings that are never split or merged.
            explicit_n_vocab: if given, how many tokens there must be in all, with no id unused.
            merges_only: encode as ``tokenizers`` does by default, not as tiktoken: tokens that merging does not lead to
                are never used, not even for a whole pretoken, and bytes without a token are left out of the text.

        Raises:
            ValueError: a byte without a token, a rank or an id used twice, or another count than `explicit_n_vocab`.
        """
        tokens = b"".join(mergeable_ranks)
        offsets = array("Q", [0])
        position = 0
        for token in mergeable_ranks:
            position += len(token)
            offsets.append(position)
        try:
            ids = array("I", mergeable_ranks.values())
        except (OverflowError, TypeError) as error:
            raise ValueError(f"ranks must be integers from 0 to 2**32 - 1 ({error})") from error
        pattern = find_pattern(pat_str)
        self._set_up(name, pattern, tokens, memoryview(offsets), memoryview(ids), special_tokens, merges_only)
        self._mergeable_ranks = dict(mergeable_ranks)
        if explicit_n_vocab is not None:
            count = len(mergeable_ranks) + len(special_tokens)
            if count != explicit_n_vocab or self.max_token_value != explicit_n_vocab - 1:
                raise ValueError(
                    f"explicit_n_vocab is {explicit_n_vocab}, but there are {count} tokens"
                    f" and the highest id is {self.max_token_value}"
                )

    @classmethod
    def _from_arrays(
        cls,
        name: str,
        pattern: Pattern,
        tokens: bytes,
        offsets: memoryview,
        ids: memoryview,
        special_tokens: Mapping[str, int],
        merges_only: bool = False,
    ) -> Tokenizer:
        """The constructor of the readers in ``formats``, which makes no dict of the ranks.

        Token i is ``tokens[offsets[i]:offsets[i + 1]]`` (uint64) and has the id ``ids[i]`` (uint32).
        """
        self = cls.__new__(cls)
        self._set_up(name, pattern, tokens, offsets, ids, special_tokens, merges_only)
        return self

    def _set_up(
        self,
        name: str,
        pattern: Pattern,
        tokens: bytes,
        offsets: memoryview,
        ids: memoryview,
        special_tokens: Mapping[str, int],
        merges_only: bool,
    ) -> None:
        self.name = name
        self.pattern = pattern
        self._special_tokens = dict(special_tokens)
        self._special_token_values = set(self._special_tokens.values())
        if len(self._special_token_values) < len(self._special_tokens):
            raise ValueError("two special tokens have the same id")
        for token, id in self._special_tokens.items():
            if not token or any("\ud800" <= character <= "\udfff" for character in token):
                raise ValueError(f"{token!r} cannot be a special token: it is empty or holds a surrogate")
            if not 0 <= id < 2**32:
                raise ValueError(f"the special token {token!r} has the id {id}; ids are from 0 to 2**32 - 1")
        scanner = _NO_SCANNER if pattern.scanner is None else pattern.scanner
        self._core = _core.Encoder(tokens, offsets, ids, scanner, self._special_tokens, merges_only=merges_only)
        all_bytes = bytes(range(256)) if merges_only else b""
        self.unknown_bytes = bytes(byte for byte in all_bytes if self._core.find(bytes([byte])) is None)
        """Those without a token, which are left out of a text before it is encoded; b"" unless `merges_only`."""
        reachable = 256 - len(self.unknown_bytes) + self._core.pair_count
        self.merges_only = merges_only and (len(self.unknown_bytes) > 0 or reachable < len(ids))
        """Whether ids may differ from tiktoken's because a pretoken is not taken whole, or bytes have no token."""
        self._all_special = _core.SpecialTokens(self._special_tokens)
        super().__init__(self._core if pattern.scanner is not None else None, self._all_special)
        self._matchers: dict[frozenset[str], _core.SpecialTokens] = {}
        self.max_token_value: int = max(self._core.id_limit - 1, max(self._special_token_values, default=0))
        if pattern.scanner is None:
            _ = self._regex  # a pattern that does not compile is refused now, not at the first text

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        pattern: str | None = None,
        special_tokens: Mapping[str, int] | Sequence[str] | None = None,
    ) -> Tokenizer:
        """Read a tokenizer; the format is told from the content: tiktoken's ranks or a tokenizer.json.

        Ranks alone carry neither pattern nor special tokens. Published ones (Llama 3's, cl100k_base, ...) are
        recognised by their hash; for others `pattern` is needed, a name or a regular expression, and `special_tokens`
        gives the special tokens: a mapping to ids, or names to be numbered after the last rank. Without it they are
        those of the named pattern, numbered so.

        Raises:
            OSError: the file cannot be read.
            InputError: it is not a tokenizer that we know; the message names the place.
        """
        from bpe.formats import read_tokenizer

        return read_tokenizer(Path(path), pattern, special_tokens)

    @classmethod
    def from_name(cls, name: str) -> Tokenizer:
        """Find a tokenizer by name, such as "llama3": see ``bpe.locate``.

        Raises:
            InputError: no such file, or the name is not known or not found on this machine.
        """
        from bpe.locate import locate

        return cls.from_file(locate(name))

    def save(self, path: str | os.PathLike[str], format: Literal["huggingface", "tiktoken"] | None = None) -> None:
        """Write the tokenizer; `format` follows from the suffix: .json, or .model / .tiktoken.

        A tokenizer.json holds everything; tiktoken's format holds the ranks only.
        """
        from bpe.formats import write_tokenizer

        write_tokenizer(self, Path(path), format)

    def __repr__(self) -> str:
        return f"<Tokenizer {self.name!r}>"

    # Encoding

    # encode_ordinary and encode_to_numpy are inherited from the core: a Python function around them would take as long
    # again for a word.

    def encode(
        self,
        text: str | bytes,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = frozenset(),
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> list[int]:
        """The ids of `text`. A special token in it is an error unless it is allowed, or not disallowed.

        Args:
            text: any str, or bytes.
            allowed_special: the special tokens that become their ids where they stand in the text, or "all".
            disallowed_special: those that raise, by default all that are not allowed; ``()`` lets them be text.

        Of several allowed tokens that begin at one place, the longest is taken.

        Raises:
            ValueError: the text holds a disallowed special token.
        """
        if not allowed_special and disallowed_special == "all":
            return self._encode_without_special(text)
        return self._encode(text, self._special_for(text, allowed_special, disallowed_special))

    def _encode_to_numpy(
        self,
        text: str | bytes,
        allowed_special: Literal["all"] | AbstractSet[str],
        disallowed_special: Literal["all"] | Collection[str],
    ) -> npt.NDArray[np.uint32]:
        """The rest of encode_to_numpy: with special tokens to look for, or a pattern without a scanner."""
        special = self._special_for(text, allowed_special, disallowed_special)
        if self.pattern.scanner is None:
            import numpy as np

            return np.array(self._encode_slowly(text, special), dtype=np.uint32)
        return self._core.encode_to_numpy(text, special)

    def encode_with_unstable(
        self,
        text: str,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = frozenset(),
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> tuple[list[int], list[list[int]]]:
        """The ids that stay whatever text follows, and the ways in which the rest of the ids may begin.

        Each completion, appended to the stable ids, decodes to something that begins with `text`. As in tiktoken, whose
        rules these are, the interface is experimental, and the completions come in no particular order.
        """
        from bpe.unstable import split_unstable

        special = self._special_for(text, allowed_special, disallowed_special)
        return split_unstable(self, as_bytes(text), special)

    def encode_ordinary_batch(self, text: Iterable[str | bytes], *, num_threads: int = 8) -> list[list[int]]:
        """`encode_ordinary` of each text, on several threads."""
        return self._core.lists(*self.encode_flat(text, num_threads=num_threads))

    def encode_batch(
        self,
        text: Iterable[str | bytes],
        *,
        num_threads: int = 8,
        allowed_special: Literal["all"] | AbstractSet[str] = frozenset(),
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> list[list[int]]:
        """`encode` of each text, on several threads."""
        return self._core.lists(
            *self.encode_flat(
                text,
                num_threads=num_threads,
                allowed_special=allowed_special,
                disallowed_special=disallowed_special,
            )
        )

    @overload
    def encode_flat(
        self,
        texts: Iterable[str | bytes],
        *,
        num_threads: int | None = ...,
        allowed_special: Literal["all"] | AbstractSet[str] = ...,
        disallowed_special: Literal["all"] | Collection[str] = ...,
        dtype: type[np.uint32] | None = ...,
        out: npt.NDArray[np.uint32] | None = ...,
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]: ...
    @overload
    def encode_flat(
        self,
        texts: Iterable[str | bytes],
        *,
        num_threads: int | None = ...,
        allowed_special: Literal["all"] | AbstractSet[str] = ...,
        disallowed_special: Literal["all"] | Collection[str] = ...,
        dtype: type[np.uint16],
        out: npt.NDArray[np.uint16] | None = ...,
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64]]: ...
    def encode_flat(
        self,
        texts: Iterable[str | bytes],
        *,
        num_threads: int | None = None,
        allowed_special: Literal["all"] | AbstractSet[str] = frozenset(),
        disallowed_special: Literal["all"] | Collection[str] = (),
        dtype: type[np.uint32] | type[np.uint16] | None = None,
        out: npt.NDArray[Any] | None = None,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """`encode` of many texts, without a Python object for each id, on several threads.

        A long text is spread over the threads as well: ``encode_flat([text])`` is the way for a large document.

        Args:
            texts: any mix of str and bytes.
            num_threads: by default as many as there are processors. The ids do not depend on it.
            allowed_special: as for `encode`.
            disallowed_special: as for `encode`; but by default none, so that special tokens are text like any other.
            dtype: np.uint32, the default, or np.uint16.
            out: an array [at least tokens] of `dtype` that the ids are put into.

        Returns:
            ids: uint32 or uint16 [tokens], of all texts, one after the other; the beginning of `out`, if it is given.
            offsets: int64 [texts + 1]; text i has ``ids[offsets[i]:offsets[i + 1]]``.

        Raises:
            ValueError: a text holds a disallowed special token; the vocabulary has ids of more than 16 bits, and
                uint16 was asked for; `out` is too small, which leaves it as it was, or no such array.

        >>> ranks = {bytes([byte]): byte for byte in range(256)} | {b"he": 256, b"ll": 257, b"hell": 258}
        >>> tokenizer = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={})
        >>> ids, offsets = tokenizer.encode_flat(["hello", "he"])
        >>> ids.tolist(), offsets.tolist()
        ([258, 111, 256], [0, 2, 3])
        """
        special, forbidden = self._matchers_for(allowed_special, disallowed_special)
        if forbidden is not None:
            texts = list(texts)
            found = forbidden.first_of(texts, None)
            if found is not None:
                self._raise_disallowed(found[1])
        return self._encode_all(texts, special, num_threads, None, dtype, out)

    @overload
    def encode_files(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        separator: str | None = ...,
        num_threads: int | None = ...,
        allowed_special: Literal["all"] | AbstractSet[str] = ...,
        disallowed_special: Literal["all"] | Collection[str] = ...,
        dtype: type[np.uint32] | None = ...,
        out: npt.NDArray[np.uint32] | None = ...,
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]: ...
    @overload
    def encode_files(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        separator: str | None = ...,
        num_threads: int | None = ...,
        allowed_special: Literal["all"] | AbstractSet[str] = ...,
        disallowed_special: Literal["all"] | Collection[str] = ...,
        dtype: type[np.uint16],
        out: npt.NDArray[np.uint16] | None = ...,
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64]]: ...
    def encode_files(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        separator: str | None = None,
        num_threads: int | None = None,
        allowed_special: Literal["all"] | AbstractSet[str] = frozenset(),
        disallowed_special: Literal["all"] | Collection[str] = (),
        dtype: type[np.uint32] | type[np.uint16] | None = None,
        out: npt.NDArray[Any] | None = None,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """`encode_flat` of the documents in files, straight from disk.

        Each file is one document, as it is, or many. Large files are mapped into memory, and no copy of their text is
        made; so they must not be cut short by others meanwhile. Bytes that are not UTF-8 are kept (see
        `encode_ordinary`).

        Args:
            paths: the files, or a single one. Archives and .jsonl files are taken as the bytes that they are; it is
                `bpe.corpus.documents` that looks into them.
            separator: where this stands in a file, a document ends and the next begins. As in `bpe.corpus.documents`,
                ASCII white space around documents is dropped, and then those that are empty; and the separator itself
                is not encoded, be it a special token or not.
            num_threads, allowed_special, disallowed_special, dtype, out: as for `encode_flat`.

        Returns:
            ids: uint32 or uint16 [tokens], of all documents, one after the other; the beginning of `out`, if given.
            offsets: int64 [documents + 1]; document i has ``ids[offsets[i]:offsets[i + 1]]``.

        Raises:
            OSError: a file that cannot be read; `filename` says which.
            InputError: the separator is empty.
            ValueError: as for `encode_flat`; the message names the file that holds a disallowed special token.
        """
        if separator == "":
            raise InputError("the separator of documents is empty")
        names = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        special, forbidden = self._matchers_for(allowed_special, disallowed_special)
        contents = [_core.file_content(name) for name in names]
        if forbidden is not None:
            found = forbidden.first_of(contents, separator)
            if found is not None:
                self._raise_disallowed(found[1], where=f"{os.fspath(names[found[0]])}: ")
        return self._encode_all(contents, special, num_threads, separator, dtype, out)

    def limit_cache(self, megabytes: int) -> None:
        """Let what is remembered of words seen take at most so many MB (2**20 bytes), 64 unless this is called.

        Half is for the first thread, the other half for as many more as there are processors, with at least 2 MB for
        each; further threads take 2 MB on top. The ids do not depend on it. What was remembered is forgotten.
        """
        if megabytes < 4:
            raise ValueError(f"megabytes is {megabytes}; at least 4 are needed")
        self._core.limit_cache(megabytes << 20)

    def count(self, text: str | bytes) -> int:
        """How many ids `encode_ordinary` would give."""
        if self.pattern.scanner is None:
            return len(self._encode_slowly(text, None))
        return self._core.count(text, None)

    def count_batch(self, texts: Iterable[str | bytes], *, num_threads: int | None = None) -> list[int]:
        """`count` of each text, on several threads."""
        _, offsets = self.encode_flat(texts, num_threads=num_threads)
        ends: list[int] = offsets.tolist()
        return [end - begin for begin, end in zip(ends, ends[1:], strict=False)]

    def truncate(self, text: str, max_tokens: int, *, side: Literal["left", "right"] = "right") -> str:
        """The text, cut so that `encode_ordinary` gives at most `max_tokens` ids.

        Args:
            text: what to cut; lone surrogates become U+FFFD.
            max_tokens: how many ids there may be.
            side: where to cut: "right" keeps the beginning, "left" the end.

        The cut is at the edge of a token, or, where that would split a character, at the next edge of a character that
        keeps less. What is kept is encoded again, since a text's beginning may take more tokens than it did within
        the whole; then a token less is kept.

        >>> ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256}
        >>> tokenizer = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={})
        >>> tokenizer.truncate("abcé", 3), tokenizer.truncate("abcé", 3, side="left")
        ('abc', 'cé')
        """
        if max_tokens < 0:
            raise ValueError(f"max_tokens is {max_tokens}; it cannot be negative")
        if side not in ("left", "right"):
            raise ValueError(f"side is {side!r}; it must be 'left' or 'right'")
        ids = self._encode(text, None)
        if len(ids) <= max_tokens:
            return text
        content = as_bytes(text)
        places = self._places_of_known_bytes(content)
        for keep in range(max_tokens, 0, -1):
            if side == "right":
                last = places[len(self._core.decode_bytes(ids[:keep])) - 1]
                kept = content[: last + 1].decode("utf-8", "ignore")
            else:
                first = places[-len(self._core.decode_bytes(ids[-keep:]))]
                kept = content[first:].lstrip(_CONTINUATION).decode("utf-8")
            if self.count(kept) <= max_tokens:
                return kept
        return ""

    def encode_with_offsets(
        self, text: str, *, unit: Literal["characters", "bytes"] = "characters"
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of `encode_ordinary`, and where in the text each token stands: begin and end.

        In bytes of UTF-8 the spans join up, but for `unknown_bytes`. In characters, a token that holds a part of a
        character spans all of it, so that the spans of neighbours overlap there.

        >>> ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256}
        >>> tokenizer = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={})
        >>> tokenizer.encode_with_offsets("abé")
        ([256, 195, 169], [(0, 2), (2, 3), (2, 3)])
        """
        if unit not in ("characters", "bytes"):
            raise ValueError(f"unit is {unit!r}; it must be 'characters' or 'bytes'")
        ids = self._encode(text, None)
        content = as_bytes(text)
        places = self._places_of_known_bytes(content)
        spans = []
        at = 0
        for part in self.decode_tokens_bytes(ids):
            spans.append((places[at], places[at + len(part) - 1] + 1))
            at += len(part)
        if unit == "characters":
            begun = list(accumulate(byte not in _CONTINUATION for byte in content))  # characters, up to each byte
            spans = [(begun[begin] - 1, begun[end - 1]) for begin, end in spans]
        return ids, spans

    def _places_of_known_bytes(self, content: bytes) -> Sequence[int]:
        """Where in a text the bytes stand that its ids decode to."""
        if not self.unknown_bytes:
            return range(len(content))
        return [place for place, byte in enumerate(content) if byte not in self.unknown_bytes]

    def encode_single_token(self, text_or_bytes: str | bytes) -> int:
        """The id of one token, special or not, given whole.

        Raises:
            KeyError: there is no such token.
        """
        token = as_bytes(text_or_bytes)
        id = self._core.find(token) if token else None
        if id is None:
            try:
                id = self._special_tokens[token.decode("utf-8")]
            except (KeyError, UnicodeDecodeError):
                raise KeyError(token) from None
        return id

    def _encode_all(
        self,
        texts: Iterable[str | Buffer],
        special: _core.SpecialTokens | None,
        num_threads: int | None,
        separator: str | None,
        dtype: type[np.uint32] | type[np.uint16] | None,
        out: npt.NDArray[Any] | None,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """The ids of texts, or of the documents in them where there is a separator."""
        threads = num_threads or os.cpu_count() or 1
        short = False
        if dtype is not None or out is not None:
            short = self._is_short(dtype, out)
        if self.pattern.scanner is not None:
            ids, offsets = self._core.encode_all(texts, special, threads, separator, short, out)
            return (ids if out is None else out[:ids]), offsets

        import numpy as np

        if separator is not None:
            parts = (part.strip() for text in texts for part in as_bytes(text).split(separator.encode()))
            texts = [part for part in parts if part]
        rows = [self._encode_slowly(text, special) for text in texts]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        size = int(offsets[-1])
        if out is None:
            out = np.empty(size, dtype=np.uint16 if short else np.uint32)
        elif len(out) < size:
            raise ValueError(f"out has room for {len(out)} ids, but there are {size}")
        out[:size] = [id for row in rows for id in row]
        return out[:size], offsets

    def _is_short(self, dtype: type[np.uint32] | type[np.uint16] | None, out: npt.NDArray[Any] | None) -> bool:
        """Whether ids of 16 bits are wanted. Refuses what cannot be had."""
        import numpy as np

        wanted = np.dtype(dtype or np.uint32)
        if wanted not in (np.uint32, np.uint16):
            raise ValueError(f"dtype is {wanted}; ids are uint32 or uint16")
        if wanted == np.uint16 and self.max_token_value > 0xFFFF:
            raise ValueError(f"the ids go up to {self.max_token_value}, which 16 bits do not hold; ask for np.uint32")
        if out is not None and not (
            isinstance(out, np.ndarray) and out.dtype == wanted and out.ndim == 1 and out.flags.carray
        ):
            raise ValueError(f"out must be a writable, contiguous array of {wanted} with one dimension")
        return bool(wanted == np.uint16)

    def _encode(self, text: str | bytes, special: _core.SpecialTokens | None) -> list[int]:
        if self.pattern.scanner is None:
            return self._encode_slowly(text, special)
        return self._core.encode(text, special)

    def _last_pretoken(self, text: bytes) -> bytes:
        if self.pattern.scanner is None:
            matches = [match.group() for match in self._regex.finditer(text.decode())]
            return matches[-1].encode() if matches else b""
        ends = _core.scan(self.pattern.scanner, text)
        return text[int(ends[-2]) if len(ends) > 1 else 0 :]

    @cached_property
    def _sorted_tokens(self) -> list[bytes]:
        return sorted(self._mergeable_ranks)

    def _tokens_beginning_with(self, prefix: bytes) -> Iterator[bytes]:
        from bpe.unstable import beginning_with

        return beginning_with(self._sorted_tokens, prefix)

    # Special tokens

    def _special_for(
        self,
        text: str | bytes,
        allowed: Literal["all"] | AbstractSet[str],
        disallowed: Literal["all"] | Collection[str],
    ) -> _core.SpecialTokens | None:
        """The matcher of the allowed tokens, after a look for the disallowed ones."""
        special, forbidden = self._matchers_for(allowed, disallowed)
        if forbidden is not None:
            found = forbidden.first_in(text)
            if found is not None:
                self._raise_disallowed(found)
        return special

    def _matchers_for(
        self, allowed: Literal["all"] | AbstractSet[str], disallowed: Literal["all"] | Collection[str]
    ) -> tuple[_core.SpecialTokens | None, _core.SpecialTokens | None]:
        """What is to be looked for in a text: the allowed tokens, and the disallowed; None where there are none."""
        if isinstance(allowed, str):
            allowed = self.special_tokens_set
        if isinstance(disallowed, str):
            if not allowed:
                return None, self._all_special if self._special_tokens else None
            disallowed = self.special_tokens_set - allowed
        return (
            self._matcher(frozenset(allowed & self._special_tokens.keys())) if allowed else None,
            self._matcher(frozenset(disallowed)) if disallowed else None,
        )

    def _matcher(self, tokens: frozenset[str]) -> _core.SpecialTokens:
        matcher = self._matchers.get(tokens)
        if matcher is None:
            if len(self._matchers) >= 64:  # a caller who makes up sets must not fill the memory
                self._matchers.clear()
            matcher = _core.SpecialTokens({token: self._special_tokens.get(token, 0) for token in tokens})
            self._matchers[tokens] = matcher
        return matcher

    @staticmethod
    def _raise_disallowed(token: str, where: str = "") -> NoReturn:
        raise ValueError(
            f"{where}the text holds the special token {token!r}, which is disallowed. To have it encoded as that token,"
            f" pass allowed_special={{{token!r}}}; to have it encoded as ordinary text, pass disallowed_special=()."
        )

    # Patterns without a scanner

    @cached_property
    def _regex(self) -> regex.Pattern[str]:
        return self.pattern.compile()

    def _encode_slowly(self, text: str | Buffer, special: _core.SpecialTokens | None) -> list[int]:
        content = as_bytes(text)
        ids: list[int] = []
        begin = 0
        for start, end, id in [*(special.all_in(content) if special else ()), (len(content), len(content), None)]:
            part = content[begin:start].decode("utf-8", "surrogateescape")
            pretokens = (match.group().encode("utf-8", "surrogateescape") for match in self._regex.finditer(part))
            ids += self._core.encode_pretokens(pretokens)
            if id is not None:
                ids.append(id)
            begin = end
        return ids

    # Decoding

    def decode_bytes(self, tokens: Sequence[int] | npt.NDArray[np.uint32]) -> bytes:
        """The bytes that the ids stand for.

        Raises:
            KeyError: an id that the vocabulary does not have.
            OverflowError: a negative id, or one of more than 32 bits.
        """
        return self._core.decode_bytes(tokens)

    def decode(self, tokens: Sequence[int] | npt.NDArray[np.uint32], errors: str = "replace") -> str:
        """The text that the ids stand for. Bytes that are not UTF-8 are treated as `errors` says."""
        return self._core.decode(tokens, errors)

    def decode_single_token_bytes(self, token: int) -> bytes:
        """The bytes of one token.

        Raises:
            KeyError: the vocabulary has no such id.
        """
        return self._core.bytes_of(token)

    def token_sizes(self) -> npt.NDArray[np.uint32]:
        """How many bytes of text each id stands for [n_vocab]; 0 for special tokens, and for ids that are none."""
        return self._core.token_sizes(self.n_vocab)

    def decode_tokens_bytes(self, tokens: Iterable[int]) -> list[bytes]:
        """The bytes of each token."""
        return [self._core.bytes_of(token) for token in tokens]

    def decode_with_offsets(self, tokens: Sequence[int]) -> tuple[str, list[int]]:
        """The text, and for each token the index of the first character that holds bytes of it.

        Raises:
            UnicodeDecodeError: the tokens do not make UTF-8.
        """
        parts = self.decode_tokens_bytes(tokens)
        text = b"".join(parts).decode("utf-8")
        offsets = []
        characters = 0  # that have begun
        for part in parts:
            offsets.append(max(0, characters - (part[0] in _CONTINUATION)))
            characters += sum(byte not in _CONTINUATION for byte in part)
        return text, offsets

    def decode_batch(
        self, batch: Sequence[Sequence[int]], *, errors: str = "replace", num_threads: int = 8
    ) -> list[str]:
        """`decode` of each. Decoding holds Python's lock, so that more threads would not be quicker."""
        return [self.decode(tokens, errors) for tokens in batch]

    def decode_bytes_batch(self, batch: Sequence[Sequence[int]], *, num_threads: int = 8) -> list[bytes]:
        """`decode_bytes` of each."""
        return [self._core.decode_bytes(tokens) for tokens in batch]

    # The vocabulary

    @property
    def n_vocab(self) -> int:
        """One more than the highest id."""
        return self.max_token_value + 1

    @cached_property
    def special_tokens_set(self) -> set[str]:
        return set(self._special_tokens)

    @property
    def special_tokens(self) -> dict[str, int]:
        """A copy of string -> id."""
        return dict(self._special_tokens)

    @property
    def eot_token(self) -> int:
        """The id of <|endoftext|>.

        Raises:
            KeyError: there is no such special token.
        """
        return self._special_tokens["<|endoftext|>"]

    def is_special_token(self, token: int) -> bool:
        return token in self._special_token_values

    @cached_property
    def _mergeable_ranks(self) -> dict[bytes, int]:
        ranks = {}
        for id in range(self._core.id_limit):
            token = self._core.token_bytes(id)
            if token:
                ranks[token] = id
        return ranks

    @property
    def mergeable_ranks(self) -> dict[bytes, int]:
        """A copy of token bytes -> rank, by rank."""
        return dict(self._mergeable_ranks)

    def token_byte_values(self) -> list[bytes]:
        """The bytes of all tokens but the special ones, sorted."""
        return list(self._sorted_tokens)

    @property
    def _pat_str(self) -> str:
        return self.pattern.text

    def __getstate__(self) -> dict[str, object]:
        return {
            "name": self.name,
            "pat_str": self.pattern.name or self.pattern.text,
            "mergeable_ranks": self._mergeable_ranks,
            "special_tokens": self._special_tokens,
            "merges_only": self.merges_only,
        }

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]
