"""The encoder for split patterns that the core has no scanner for: the ``regex`` module splits, the core merges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bpe import _core
from bpe.text import as_bytes
from bpe.vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from typing_extensions import Buffer


class RegexEncoder:
    """Encodes as `bpe._core.Encoder` does, with the same arguments and results, but on one thread and slowly."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._core = vocabulary.encoder
        self._regex = vocabulary.regex

    def encode(self, text: str | Buffer, added: _core.AddedTokens | None) -> list[int]:
        """Return the ids of a text, with the ids of the added tokens that `added` finds in it."""
        content = as_bytes(text)
        ids: list[int] = []
        begin = 0
        for start, end, id in [*(added.all_in(content) if added else ()), (len(content), len(content), None)]:
            part = content[begin:start].decode("utf-8", "surrogateescape")
            pretokens = (match.group().encode("utf-8", "surrogateescape") for match in self._regex.finditer(part))
            ids += self._core.encode_pretokens(pretokens)
            if id is not None:
                ids.append(id)
            begin = end
        return ids

    def encode_to_numpy(self, text: str | Buffer, added: _core.AddedTokens | None) -> npt.NDArray[np.uint32]:
        """Return the same ids as `encode`, as an array: [tokens], uint32."""
        import numpy as np

        return np.array(self.encode(text, added), dtype=np.uint32)

    def count(self, text: str | Buffer, added: _core.AddedTokens | None) -> int:
        """Return the number of ids that `encode` would return."""
        return len(self.encode(text, added))

    def encode_all(
        self,
        texts: Iterable[str | Buffer],
        added: _core.AddedTokens | None,
        threads: int,
        separator: str | None = None,
        short_ids: bool = False,
        out: npt.NDArray[Any] | None = None,
    ) -> tuple[Any, npt.NDArray[np.int64]]:
        """Encode many texts, or the documents in them; see `bpe._core.Encoder.encode_all`. `threads` has no effect."""
        import numpy as np

        if separator is not None:
            parts = (part.strip() for text in texts for part in as_bytes(text).split(separator.encode()))
            texts = [part for part in parts if part]
        rows = [self.encode(text, added) for text in texts]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        size = int(offsets[-1])
        ids = np.empty(size, dtype=np.uint16 if short_ids else np.uint32) if out is None else out
        if len(ids) < size:
            raise ValueError(f"out has room for {len(ids)} ids, but there are {size}")
        ids[:size] = [id for row in rows for id in row]
        return (ids if out is None else size), offsets
