"""Pretokens with counts that a caller or a file supplies, instead of a corpus."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from operator import index
from typing import TYPE_CHECKING, Any, Union

from bpe import _core
from bpe.corpus import records
from bpe.errors import InputError
from bpe.optional import require
from bpe.patterns import Pattern
from bpe.splitting.excerpts import excerpt
from bpe.text import as_bytes
from bpe.training.counting import CountedPretokens

if TYPE_CHECKING:
    Counts = Union[
        Mapping[str, int], Mapping[bytes, int], Iterable[tuple[Union[str, bytes], int]], str, os.PathLike[str]
    ]

PRETOKEN, COUNT = "pretoken", "count"
_MOST = 1 << 63  # counts and their sums stay below
_ROWS = 1 << 16


def counted_pretokens(counts: Counts, pattern: Pattern, special_tokens: Iterable[str]) -> CountedPretokens:
    """Check pretokens with counts and lay them out for merging.

    Args:
        counts: A mapping, pairs, or a file; see `bpe.train_from_counts`.
        pattern: The split pattern that the pretokens were cut by.
        special_tokens: Strings that no pretoken may contain.

    Raises:
        InputError: A pretoken is not one pretoken of the pattern or contains a special token; a count is not a positive
            whole number, or all together exceed 2**63 bytes of text.
    """
    matcher = _core.SpecialTokens(dict.fromkeys(special_tokens, 0))
    counter = _core.Counter(pattern.splitter(), matcher)
    size = 0
    by_count: defaultdict[int, list[bytes]] = defaultdict(list)  # one call of the core for many pretokens
    for place, pretoken, count in _pairs(counts):
        text = _checked_pretoken(place, pretoken, pattern, matcher)
        times = _checked_count(place, count)
        size += len(text) * times
        if size >= _MOST:
            raise InputError(f"{place}: the counts describe more than 2**63 bytes of text; divide them by a constant")
        same = by_count[times]
        same.append(text)
        if len(same) == _ROWS:
            counter.add_pretokens(by_count.pop(times), times)
    for times, same in by_count.items():
        counter.add_pretokens(same, times)
    return CountedPretokens(counter, on_disk=False, distinct=len(counter), documents=0, size=size)


def _pairs(counts: Counts) -> Iterator[tuple[str, object, object]]:
    """Yield (place for messages, pretoken, count)."""
    if isinstance(counts, (str, os.PathLike)):
        yield from _file_pairs(os.fspath(counts))
        return
    pairs: Iterable[Any] = counts.items() if isinstance(counts, Mapping) else counts
    for number, pair in enumerate(pairs, 1):
        try:
            pretoken, count = pair
        except (TypeError, ValueError):
            raise InputError(f"counts, pair {number}: expected (pretoken, count), not {pair!r:.60}") from None
        yield f"counts, pair {number}", pretoken, count


def _file_pairs(path: str) -> Iterator[tuple[str, object, object]]:
    if path.lower().endswith(".parquet"):
        yield from _parquet_pairs(path)
        return
    for place, record in records(path):
        if record.keys() != {PRETOKEN, COUNT}:
            found = ", ".join(record) or "none"
            raise InputError(f'{place}: expected {{"{PRETOKEN}": TEXT, "{COUNT}": NUMBER}}, not the keys {found}')
        yield place, record[PRETOKEN], record[COUNT]


def _parquet_pairs(path: str) -> Iterator[tuple[str, object, object]]:
    arrow = require(path, "pyarrow")
    parquet = require(path, "pyarrow.parquet")
    try:
        table = parquet.ParquetFile(path)
        missing = {PRETOKEN, COUNT} - set(table.schema_arrow.names)
        if missing:
            raise InputError(
                f"{path}: there is no column {', '.join(sorted(missing))!r}; expected the columns {PRETOKEN} (string or"
                f" binary) and {COUNT} (integer)"
            )
        row = 0
        for batch in table.iter_batches(_ROWS, columns=[PRETOKEN, COUNT]):
            columns = (batch.column(name).to_pylist() for name in (PRETOKEN, COUNT))
            for pretoken, count in zip(*columns, strict=True):
                row += 1
                yield f"{path}: row {row}", pretoken, count
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file or directory") from error
    except (arrow.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise InputError(f"{path}: the file is damaged ({' '.join(str(error).split())})") from error


def _checked_pretoken(place: str, pretoken: object, pattern: Pattern, matcher: _core.SpecialTokens) -> bytes:
    if not isinstance(pretoken, (str, bytes)):
        raise InputError(f"{place}: a pretoken is a str or bytes, not {type(pretoken).__name__}")
    text = as_bytes(pretoken)
    special = matcher.first_in(text)
    if special is not None:
        raise InputError(f"{place}: {pretoken!r:.60} contains the special token {special!r}, which is never counted")
    if not pattern.keeps(text):
        name = pattern.name or f"'{excerpt(pattern.text)}'"
        raise InputError(
            f"{place}: {pretoken!r:.60} is not one pretoken of the split pattern {name}; count what that pattern splits"
            " text into, or name the pattern that was used"
        )
    return text


def _checked_count(place: str, count: Any) -> int:
    try:
        times = -1 if isinstance(count, bool) else index(count)
    except TypeError:
        times = -1
    if not 0 < times < _MOST:
        raise InputError(f"{place}: the count {count!r:.60} is not a whole number from 1 to 2**63 - 1")
    return int(times)
