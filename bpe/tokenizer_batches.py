"""The methods of `Tokenizer` that encode and decode many texts at once, on several threads."""

from __future__ import annotations

import operator
import os
from collections.abc import Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Literal, overload

from bpe import _core
from bpe.errors import InputError
from bpe.special import SpecialMatchers, as_set, raise_disallowed
from bpe.vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from typing_extensions import Buffer

    from bpe._core import AddedTokens, Encoder

NO_TOKENS: frozenset[str] = frozenset()


class BatchTokenizer(_core.TokenizerBase):
    """The base of `Tokenizer` with the methods for many texts."""

    vocabulary: Vocabulary
    """The tokens, the split pattern and the special tokens."""
    special_matchers: SpecialMatchers
    """Finds special tokens in a text; see `bpe.special`."""
    _core: Encoder

    def encode_ordinary_batch(self, text: Iterable[str | bytes], *, num_threads: int = 8) -> list[list[int]]:
        """Encode each text as `encode_ordinary` does, on several threads."""
        return self._core.lists(*self.encode_flat(text, num_threads=num_threads))

    def encode_batch(
        self,
        text: Iterable[str | bytes],
        *,
        num_threads: int = 8,
        allowed_special: Literal["all"] | AbstractSet[str] = NO_TOKENS,
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> list[list[int]]:
        """Encode each text as `encode` does, on several threads."""
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
        allowed_special: Literal["all"] | AbstractSet[str] = NO_TOKENS,
        disallowed_special: Literal["all"] | Collection[str] = (),
        dtype: type[np.uint32] | type[np.uint16] | None = None,
        out: npt.NDArray[Any] | None = None,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Encode many texts to one array, on several threads.

        No Python object is made for each id. A long text is split over the threads as well, so ``encode_flat([text])``
        is the fastest way to encode a large document.

        Args:
            texts: Any mix of str and bytes.
            num_threads: The number of threads. Default: the number of processors. The ids do not depend on it.
            allowed_special: As in `encode`.
            disallowed_special: As in `encode`, but by default none: special tokens are encoded as ordinary text.
            dtype: np.uint32 (default) or np.uint16.
            out: A writable, contiguous array of `dtype` to write the ids to, with room for all of them.

        Returns:
            ids: The ids of all texts, joined; the beginning of `out` if that is given. [tokens], uint32 or uint16
            offsets: Where the ids of each text begin: text i has ``ids[offsets[i]:offsets[i + 1]]``. [texts + 1], int64

        Raises:
            TypeError: As in `encode`.
            ValueError: When a text contains a disallowed special token, `num_threads` is less than 1, uint16 is too
                small for the vocabulary's ids, or `out` is too small or not such an array. `out` is not changed then.

        >>> from bpe import Tokenizer
        >>> ranks = {bytes([byte]): byte for byte in range(256)} | {b"he": 256, b"ll": 257, b"hell": 258}
        >>> tokenizer = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={})
        >>> ids, offsets = tokenizer.encode_flat(["hello", "he"])
        >>> ids.tolist(), offsets.tolist()
        ([258, 111, 256], [0, 2, 3])
        """
        forbidden = self.special_matchers.disallowed(allowed_special, as_set(disallowed_special))
        if forbidden is not None:
            texts = list(texts)
            found = forbidden.first_of(texts, None)
            if found is not None:
                raise_disallowed(found[1])
        added = self.special_matchers.allowed(allowed_special)
        return self._encode_all(texts, added, num_threads, None, dtype, out)

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
        allowed_special: Literal["all"] | AbstractSet[str] = NO_TOKENS,
        disallowed_special: Literal["all"] | Collection[str] = (),
        dtype: type[np.uint32] | type[np.uint16] | None = None,
        out: npt.NDArray[Any] | None = None,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Encode the documents in files to one array, on several threads.

        Large files are mapped into memory and their text is not copied, so no other program may truncate them during
        the call. Bytes that are not UTF-8 are kept; see `encode_ordinary`.

        Args:
            paths: The files, or a single file. Archives and .jsonl files are encoded as the bytes that they are;
                `bpe.corpus.documents` reads the documents inside them.
            separator: A string that separates the documents of a file. As in `bpe.corpus.documents`, the separator
                itself is not encoded, ASCII white space around a document is dropped, and so are empty documents.
                Default: each file is one document.
            num_threads: As in `encode_flat`.
            allowed_special: As in `encode_flat`.
            disallowed_special: As in `encode_flat`.
            dtype: As in `encode_flat`.
            out: As in `encode_flat`.

        Returns:
            ids: The ids of all documents, joined; the beginning of `out` if that is given. [tokens], uint32 or uint16
            offsets: Where the ids of each document begin: document i has ``ids[offsets[i]:offsets[i + 1]]``.
                [documents + 1], int64

        Raises:
            OSError: When a file cannot be read; its `filename` attribute names the file.
            InputError: When the separator is empty.
            ValueError: As in `encode_flat`; the message names the file that contains a disallowed special token.
        """
        if separator == "":
            raise InputError("the separator of documents is empty")
        names = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        forbidden = self.special_matchers.disallowed(allowed_special, as_set(disallowed_special))
        contents = [_core.file_content(name) for name in names]
        if forbidden is not None:
            found = forbidden.first_of(contents, separator)
            if found is not None:
                raise_disallowed(found[1], where=f"{os.fspath(names[found[0]])}: ")
        added = self.special_matchers.allowed(allowed_special)
        return self._encode_all(contents, added, num_threads, separator, dtype, out)

    def count_batch(self, texts: Iterable[str | bytes], *, num_threads: int | None = None) -> list[int]:
        """Return the `count` of each text, on several threads."""
        _, offsets = self.encode_flat(texts, num_threads=num_threads)
        ends: list[int] = offsets.tolist()
        return [end - begin for begin, end in zip(ends, ends[1:], strict=False)]

    def decode_batch(
        self, batch: Sequence[Sequence[int]], *, errors: str = "replace", num_threads: int = 8
    ) -> list[str]:
        """Decode each sequence of ids to text.

        `num_threads` is accepted as in tiktoken and ignored: decoding holds the interpreter's lock, so more threads
        would not be faster.

        Raises:
            KeyError: When the vocabulary has no token with one of the ids.
            ValueError: When `num_threads` is less than 1.
        """
        _thread_count(num_threads)
        return [self._decode(tokens, errors) for tokens in batch]

    def _decode(self, tokens: Sequence[int] | npt.NDArray[np.uint32], errors: str) -> str:
        vocabulary = self.vocabulary
        if errors != "replace" or not vocabulary.replaces_byte_runs:
            return self._core.decode(tokens, errors)
        try:
            return self._core.decode(tokens, "strict")
        except UnicodeDecodeError:
            return vocabulary.decoded(tokens)

    def decode_bytes_batch(self, batch: Sequence[Sequence[int]], *, num_threads: int = 8) -> list[bytes]:
        """Decode each sequence of ids to bytes. `num_threads` is ignored, as in `decode_batch`."""
        _thread_count(num_threads)
        return [self._core.decode_bytes(tokens) for tokens in batch]

    def _encode_all(
        self,
        texts: Iterable[str | Buffer],
        added: AddedTokens | None,
        num_threads: int | None,
        separator: str | None,
        dtype: type[np.uint32] | type[np.uint16] | None,
        out: npt.NDArray[Any] | None,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """The ids of the texts, or of the documents in them if there is a separator."""
        threads = _thread_count(num_threads)
        short = False
        if dtype is not None or out is not None:
            short = self._is_short(dtype, out)
        ids, offsets = self._core.encode_all(texts, added, threads, separator, short, out)
        return (ids if out is None else out[:ids]), offsets

    def _is_short(self, dtype: type[np.uint32] | type[np.uint16] | None, out: npt.NDArray[Any] | None) -> bool:
        """Whether ids of 16 bits are asked for. Raises if `dtype` or `out` cannot be used."""
        import numpy as np

        wanted = np.dtype(dtype or np.uint32)
        if wanted not in (np.uint32, np.uint16):
            raise ValueError(f"dtype is {wanted}; ids are uint32 or uint16")
        if wanted == np.uint16 and self.vocabulary.max_token_value > 0xFFFF:
            raise ValueError(
                f"the highest id is {self.vocabulary.max_token_value}, which does not fit into uint16; use np.uint32"
            )
        if out is not None and not (
            isinstance(out, np.ndarray) and out.dtype == wanted and out.ndim == 1 and out.flags.carray
        ):
            raise ValueError(f"out must be a writable, contiguous array of {wanted} with one dimension")
        return bool(wanted == np.uint16)


def _thread_count(num_threads: int | None) -> int:
    """The number of threads to use; by default, the number of processors."""
    if num_threads is None:
        return os.cpu_count() or 1
    if operator.index(num_threads) < 1:
        raise ValueError(f"num_threads is {num_threads}; at least 1 is needed")
    return num_threads
