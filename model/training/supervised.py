"""Supervised fine-tuning on dialogs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model.generation.completions import generate_ids
from model.training.base_model import BaseModel
from model.training.dialogs import Dialog, PathLike, Reading, batch_of, read_dialogs, read_texts, texts_of
from model.training.examples import ExampleTask
from model.training.loss import IGNORED, Evaluation, TokenBatch, chunk_rows, counted, cross_entropy_sum, hidden_states
from model.training.settings import TrainConfig
from model.transformer import Transformer


class Supervised(ExampleTask[Dialog]):
    """Fine-tuning on what the assistant says in dialogs, including the token that ends its turn."""

    kind = "fine-tuning"

    def __init__(self, base: BaseModel, data: Sequence[PathLike], settings: TrainConfig) -> None:
        """Read dialogs; see `ExampleTask`."""
        super().__init__(self._read, base, data, settings)
        tokenizer = base.tokenizer
        self._held_out_bytes = sum(
            len(tokenizer.decode_single_token_bytes(id))
            for dialog in self.held_out
            for id, written in zip(dialog.ids[1:], dialog.written[1:], strict=True)
            if written and not tokenizer.is_special_token(id)
        )
        self._exact = 0

    def _read(self, data: Iterable[PathLike], base: BaseModel, how: Reading) -> list[Dialog]:
        return read_dialogs(data, base.chat_format, how)

    def model(self) -> Transformer:
        """Load the model to fine-tune."""
        return self.base.model(self.seed)

    def batch(self, number: int) -> list[TokenBatch]:
        """Return the data of a step."""
        return [self._batch(self.train, rows) for rows in self.rows(number)]

    def _batch(self, dialogs: list[Dialog], rows: list[list[int]]) -> TokenBatch:
        return batch_of([[dialogs[index] for index in row] for row in rows], self.base.config.packed)

    def loss(self, model: Transformer, batch: TokenBatch) -> Tensor:
        """Return the summed loss over the targets, in nats. Logits are computed for the learned tokens only."""
        learned = (batch.targets != IGNORED).to(model.device)
        return cross_entropy_sum(model, hidden_states(model, batch)[learned], batch.targets.to(model.device)[learned])

    def evaluate(self, model: Transformer) -> Evaluation | None:
        """Measure the loss on held-out dialogs, and count those that greedy decoding would reproduce."""
        if not self.held_out:
            return None
        nats, tokens, self._exact = 0.0, 0, 0
        for rows in counted(self.held_out_rows):
            batch = self._batch(self.held_out, rows)
            hidden, targets = hidden_states(model, batch), batch.targets.to(model.device)
            for text in texts_of(batch):
                learned = targets[text] != IGNORED
                loss, exact = _loss_and_match(model, hidden[text][learned], targets[text][learned])
                nats, self._exact = nats + loss, self._exact + exact
            tokens += batch.n_targets
        return Evaluation(nats, tokens, self._held_out_bytes)

    def sample(self, model: Transformer) -> str | None:
        """Return how many held-out dialogs greedy decoding reproduces, and its last turn in the first of them.

        The count is that of the last call to `evaluate`.
        """
        if not self.held_out:
            return None
        dialog, tokenizer = self.held_out[0], self.base.tokenizer
        last = len(dialog.ids) - dialog.written[::-1].index(True)
        first = last - next((n for n in range(last) if not dialog.written[last - 1 - n]), last)
        ends = self.base.chat_format.end_ids
        wanted = [id for id in dialog.ids[first:last] if id not in ends]
        room = max(0, min(len(wanted) + 16, model.config.max_seq_len - first))
        with torch.autocast(model.device.type, enabled=False):  # the cache has the dtype of the weights
            written = generate_ids(
                model, dialog.ids[:first], max_tokens=room, temperature=0, end_ids=ends, n_vocab=tokenizer.n_vocab
            )
            said = tokenizer.decode([*written])
        exact = f"{self._exact} of {len(self.held_out)} held-out dialogs exactly"
        return f"{exact}; {said!r} for {tokenizer.decode(wanted)!r}"


class Texts(Supervised):
    """Continued pretraining on plain texts: each token is learned, and the one that ends a text."""

    kind = "continued pretraining"

    def _read(self, data: Iterable[PathLike], base: BaseModel, how: Reading) -> list[Dialog]:
        return read_texts(data, base.tokenizer, how)

    def sample(self, model: Transformer) -> str | None:
        """Return how greedy decoding continues the first held-out text after its first tokens."""
        if not self.held_out:
            return None
        ids, tokenizer = self.held_out[0].ids, self.base.tokenizer
        shown = min(_SHOWN, len(ids) // 2)
        room = max(0, min(_SHOWN, model.config.max_seq_len - shown))
        with torch.autocast(model.device.type, enabled=False):
            written = generate_ids(
                model, ids[:shown], max_tokens=room, temperature=0, end_ids=frozenset(tokenizer.eos_ids),
                n_vocab=tokenizer.n_vocab,
            )  # fmt: skip
            said = tokenizer.decode([*written])
        return f"{said!r} after {tokenizer.decode(ids[:shown])!r}"


_SHOWN = 24  # tokens that a sample begins with and adds


def _loss_and_match(model: Transformer, hidden: Tensor, targets: Tensor) -> tuple[float, bool]:
    """Return the loss of targets [n] in nats, and whether each target is the most likely token."""
    nats, exact = 0.0, True
    size = chunk_rows(model)
    for some_hidden, some_targets in zip(torch.split(hidden, size), torch.split(targets, size), strict=True):
        logits = model.head(some_hidden).float()
        nats += F.cross_entropy(logits, some_targets, reduction="sum").item()
        exact = exact and bool((logits.argmax(-1) == some_targets).all())
    return nats, exact
