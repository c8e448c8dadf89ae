"""Resize a model to a grown vocabulary: the rows of the embeddings and of the output matrix follow their tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from bpe import Tokenizer
from bpe.boundaries import Boundaries
from bpe.errors import InputError
from model.checkpoint.companions import read_tokenizer
from model.checkpoint.opened import Checkpoint
from model.checkpoint.weights import EMBEDDINGS, TIED


def resized(checkpoint: Checkpoint, tokenizer_file: Path) -> Checkpoint:
    """Return the checkpoint for a tokenizer that extends its vocabulary.

    An old token keeps its row even if its id changes; special tokens, for example, have ids after all other tokens and
    move when the vocabulary grows. The row of a new token is the mean of the rows of the old tokens that its bytes (or
    the text of a special token) encode to. If there are none, and for ids without a token, it is the mean of all rows.

    Args:
        checkpoint: The model with the old vocabulary.
        tokenizer_file: A path that `Tokenizer.from_file` reads.

    Raises:
        InputError: When the new tokenizer lacks an old token; the message names the first missing token.
    """
    if checkpoint.config.vision is not None:
        raise InputError(f"{checkpoint.source}: the vocabulary of a model that reads images cannot grow; keep its own")
    old, new = read_tokenizer(checkpoint), Tokenizer.from_file(tokenizer_file)
    moved = _moved(old, new, f"{tokenizer_file}: does not extend the vocabulary of {checkpoint.tokenizer}")
    boundaries = _moved_boundaries(old.vocabulary.boundaries, moved)
    known = {now: before for before, now in moved.items()}

    def sources_of(id: int) -> list[int]:
        """The old rows whose mean is the row of a new id."""
        try:
            return [known[id]] if id in known else old.encode_ordinary(new.decode_single_token_bytes(id))
        except KeyError:
            return []

    sources = [sources_of(id) for id in range(new.n_vocab)]

    def tensors(dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in checkpoint.tensors(dtype):
            yield name, _rows(tensor, sources) if name in (EMBEDDINGS, TIED) else tensor

    return dataclasses.replace(
        checkpoint,
        config=dataclasses.replace(checkpoint.config, vocab_size=new.n_vocab),
        tokenizer=tokenizer_file,
        computed=tensors,
        weights=None,
        stored="",
        kinds={},
        make_tokenizer=lambda: Tokenizer.from_vocabulary(new.vocabulary.with_boundaries(boundaries)),
    )


def _moved(old: Tokenizer, new: Tokenizer, refusal: str) -> dict[int, int]:
    """Return the new id of each old id; ordinary tokens are matched by bytes, added tokens by text."""
    ranks, added = new.mergeable_ranks, new.vocabulary.added_ids
    moved = {id: ranks.get(token) for token, id in old.mergeable_ranks.items()}
    moved |= {id: added.get(text) for text, id in old.vocabulary.added_ids.items()}
    for id in sorted(moved):
        if moved[id] is None:
            kind = "special token" if old.is_special_token(id) else "token"
            shown = old.decode_single_token_bytes(id).decode("utf-8", "backslashreplace")
            raise InputError(f"{refusal}: no {kind} {shown!r} (id {id}); use a tokenizer trained with --base from it")
    return {before: now for before, now in moved.items() if now is not None}


def _moved_boundaries(old: Boundaries, moved: Mapping[int, int]) -> Boundaries:
    """Return what begins and ends a text with the new ids of the tokens."""

    def after(ids: Iterable[int]) -> tuple[int, ...]:
        return tuple(moved[id] for id in ids if id in moved)

    return old._replace(
        bos_id=None if old.bos_id is None else moved.get(old.bos_id),
        eos_id=None if old.eos_id is None else moved.get(old.eos_id),
        eos_ids=after(old.eos_ids),
        prefix_ids=after(old.prefix_ids),
        suffix_ids=after(old.suffix_ids),
    )


def _rows(old: Tensor, sources: Sequence[list[int]]) -> Tensor:
    """Return for each of `sources` the mean of these rows of `old`; a single row is copied exactly."""
    wide = torch.promote_types(old.dtype, torch.float32)
    everything = old.mean(0, dtype=wide).to(old.dtype)
    new = old.new_empty(len(sources), *old.shape[1:])
    alone = [id for id, rows in enumerate(sources) if len(rows) == 1]
    new[alone] = old[[sources[id][0] for id in alone]]
    for id, rows in enumerate(sources):
        if not rows:
            new[id] = everything
        elif len(rows) > 1:
            new[id] = old[rows].mean(0, dtype=wide).to(old.dtype)
    return new
