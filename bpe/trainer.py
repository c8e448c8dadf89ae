"""corpus -> counts -> merges -> Tokenizer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Literal

from . import _core
from .corpus import Source, documents
from .errors import InputError
from .formats.huggingface import byte_characters
from .patterns import find_pattern
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    import regex

BATCH_BYTES = 16 << 20  # documents are handed to the core, which counts them on all threads, in batches of this size


def train(
    sources: Source | Iterable[Source],
    vocab_size: int,
    pattern: str = "llama3",
    special_tokens: Sequence[str] | None = None,
    *,
    tie_break: Literal["bytes", "huggingface"] = "bytes",
    min_frequency: int = 1,
    max_token_length: int | None = None,
    allow_smaller: bool = False,
    name: str = "trained",
    threads: int | None = None,
    exclude: Sequence[str] = (),
    counted: Callable[[int, int], None] | None = None,
    merged: Callable[[int], None] | None = None,
) -> Tokenizer:
    """Learn a byte-level BPE vocabulary: the pair with the highest count is merged first, again and again.

    Args:
        sources: paths of files or directories, globs, "-" for stdin, or iterables of str or bytes: see ``bpe.corpus``.
        vocab_size: how many tokens in all: 256 bytes, the merges, and the special tokens, which come last.
        pattern: how text is split before: a name ("llama3", "cl100k", "gpt2") or a regular expression.
        special_tokens: strings with ids of their own; by default those of the named pattern. Where one stands in the
            text it is a boundary and is not counted.
        tie_break: of pairs with the same count, the one with the lowest pair of ids comes first, where the ids of the
            single bytes are the byte values ("bytes") or Hugging Face's order ("huggingface").
        min_frequency: pairs rarer than this are not merged.
        max_token_length: no token is longer than this many bytes.
        allow_smaller: accept a smaller vocabulary where the text has no more pairs, instead of raising.
        name: of the tokenizer.
        threads: how many count; all processors by default. The result does not depend on it.
        exclude: names or patterns of files and directories to leave out.
        counted: called with documents and bytes so far, as the text is read.
        merged: called with the number of merges so far.

    Raises:
        InputError: no text, or a vocabulary size that is too small, or larger than the text can give.

    >>> tokenizer = train([["ab bc bcd cde"]], vocab_size=259, pattern="gpt2", special_tokens=())
    >>> [tokenizer.decode([id]) for id in (256, 257, 258)]
    [' b', 'cd', ' cd']
    """
    chosen = find_pattern(pattern)
    if isinstance(special_tokens, str):
        raise InputError("special_tokens is a str; give a list of strings")
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}; it must be at least 1")
    split = chosen.compile() if chosen.scanner is None else None
    specials = list(chosen.special_tokens if special_tokens is None else special_tokens)
    if "" in specials:
        raise InputError("a special token is empty")
    if len(set(specials)) < len(specials):
        raise InputError("a special token is named twice")
    merges = vocab_size - 256 - len(specials)
    if merges < 0:
        raise InputError(
            f"a vocabulary of {vocab_size} is too small: 256 bytes and {len(specials)} special tokens need at least"
            f" {256 + len(specials)}"
        )
    if min_frequency < 1:
        raise InputError(f"min_frequency is {min_frequency}; it must be at least 1")
    if max_token_length is not None and max_token_length < 2:
        raise InputError(f"max_token_length is {max_token_length}; it must be at least 2")

    # 1. Count pretokens.
    counter = _core.Counter(
        0 if chosen.scanner is None else chosen.scanner, _core.SpecialTokens(dict.fromkeys(specials, 0))
    )
    seen_documents = seen_bytes = 0
    stream = documents(sources, exclude=exclude)
    while batch := _batch(stream):
        _count(counter, split, specials, batch, threads or os.cpu_count() or 1)
        seen_documents += len(batch)
        seen_bytes += sum(map(len, batch))
        if counted is not None:
            counted(seen_documents, seen_bytes)
    if not len(counter):
        raise InputError(f"no text to train on: {seen_documents} documents hold {seen_bytes} bytes")

    # 2. Learn merges.
    byte_order = _byte_order(tie_break)
    learned = _core.train_merges(counter, merges, min_frequency, max_token_length or 0, byte_order, merged)
    if len(learned) < merges and not allow_smaller:
        raise InputError(
            f"the text gives {256 + len(learned) + len(specials)} tokens, not {vocab_size}: no pair is left to merge"
            " (use a smaller vocabulary or more text, or accept fewer with allow_smaller / --allow-smaller)"
        )

    # 3. Name the tokens: bytes, merges, special tokens.
    tokens = [bytes([byte]) for byte in byte_order]
    for left, right, _ in learned:
        tokens.append(tokens[left] + tokens[right])
    return Tokenizer(
        name,
        pat_str=chosen.text,
        mergeable_ranks={token: rank for rank, token in enumerate(tokens)},
        special_tokens={token: len(tokens) + i for i, token in enumerate(specials)},
    )


def _batch(stream: Iterable[bytes]) -> list[bytes]:
    batch: list[bytes] = []
    size = 0
    for document in stream:
        batch.append(document)
        size += len(document)
        if size >= BATCH_BYTES:
            break
    return batch


def _count(
    counter: _core.Counter,
    split: regex.Pattern[str] | None,
    specials: Sequence[str],
    batch: Sequence[bytes],
    threads: int,
) -> None:
    if split is None:  # the core has a scanner
        counter.add(batch, 1, threads)
        return
    matcher = _core.SpecialTokens(dict.fromkeys(specials, 0))
    for document in batch:
        begin = 0
        for start, end, _ in [*matcher.all_in(document), (len(document), len(document), 0)]:
            part = document[begin:start].decode("utf-8", "surrogateescape")
            pretokens = (match.group().encode("utf-8", "surrogateescape") for match in split.finditer(part))
            while block := list(islice(pretokens, 1 << 16)):
                counter.add_pretokens(block, 1)
            begin = end


def _byte_order(tie_break: str) -> bytes:
    """The byte that each base id stands for."""
    if tie_break == "bytes":
        return bytes(range(256))
    if tie_break == "huggingface":  # its base ids follow the code points of the characters that stand for bytes
        characters = byte_characters()
        return bytes(sorted(range(256), key=lambda byte: characters[byte]))
    raise InputError(f"tie_break is {tie_break!r}; it must be 'bytes' or 'huggingface'")
