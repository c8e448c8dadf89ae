"""A model that follows its vocabulary when that grows: rows of the embeddings and of the head go with their tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from bpe import Tokenizer
from bpe.errors import InputError
from model.checkpoint.companions import read_tokenizer
from model.checkpoint.opened import EMBEDDINGS, TIED, Checkpoint


def resized(checkpoint: Checkpoint, tokenizer_file: Path) -> Checkpoint:
    """The checkpoint for a tokenizer that has all its tokens and more.

    A token of before keeps its row, whatever its id is now: special tokens stand behind the others and move when these
    grow in number. The row of a new one is the mean of the rows of those old tokens that its bytes, or the text of a
    special token, are encoded to; where there are none, and for ids without a token, the mean of all rows.

    tokenizer_file: what `Tokenizer.from_file` reads.

    Raises InputError where a token of the checkpoint's is not there; the first one is named.
    """
    old, new = read_tokenizer(checkpoint), Tokenizer.from_file(tokenizer_file)
    moved = _moved(old, new, f"{tokenizer_file}: it does not hold the vocabulary of {checkpoint.tokenizer}")
    known = {now: before for before, now in moved.items()}

    def sources_of(id: int) -> list[int]:
        """The old rows that the row of a new id is made of."""
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
        tensors=tensors,
        bos=None if checkpoint.bos is None else moved.get(checkpoint.bos),
        eos=tuple(moved[id] for id in checkpoint.eos if id in moved),
        stored="",
        kinds={},
        rows=None,
        make_tokenizer=None,
    )


def _moved(old: Tokenizer, new: Tokenizer, refusal: str) -> dict[int, int]:
    """The new ids of all old ones; ordinary tokens are found by their bytes, special ones by their texts."""
    ranks, specials = new.mergeable_ranks, new.special_tokens
    moved = {id: ranks.get(token) for token, id in old.mergeable_ranks.items()}
    moved |= {id: specials.get(text) for text, id in old.special_tokens.items()}
    for id in sorted(moved):
        if moved[id] is None:
            kind = "special token" if old.is_special_token(id) else "token"
            shown = old.decode_single_token_bytes(id).decode("utf-8", "backslashreplace")
            raise InputError(f"{refusal}: no {kind} {shown!r} (id {id}); take one that grew out of that (train --base)")
    return {before: now for before, now in moved.items() if now is not None}


def _rows(old: Tensor, sources: Sequence[list[int]]) -> Tensor:
    """For each of `sources` the mean of these rows of `old`: exactly the row where it is one."""
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
