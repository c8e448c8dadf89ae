"""A conversation with a model: its history, and a KV cache that is kept from answer to answer."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import chain
from typing import Any

from bpe import Tokenizer
from bpe.chat import ChatFormat, Message
from bpe.errors import InputError
from model.generation.completions import generate
from model.generation.decoding import Model, Session


class Conversation:
    """A dialog in which each answer has all previous messages as its context.

    Each turn encodes the whole dialog again. The model then reads only what follows the longest prefix in its cache.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        chat_format: ChatFormat,
        messages: Sequence[Message] = (),
        *,
        prefill: str = "",
        **settings: Any,
    ) -> None:
        """Start or continue a dialog.

        Args:
            model: The model.
            tokenizer: The tokenizer of the model.
            chat_format: How dialogs are encoded.
            messages: Previous messages; see `bpe.chat`.
            prefill: Text that each answer begins with.
            settings: Settings of `generate`, such as max_tokens and temperature.

        Raises:
            InputError: When the messages are not a dialog.
        """
        self.messages: list[Message] = []
        self._model = model
        self._tokenizer = tokenizer
        self._format = chat_format
        self._prefill = prefill
        self._settings = settings
        self._session = Session(model)
        self.restore(messages)

    @property
    def system(self) -> str | None:
        """The system message; None if the dialog does not begin with one."""
        first = self.messages[0] if self.messages else {}
        return first["content"] if first.get("role") == "system" else None

    @system.setter
    def system(self, text: str | None) -> None:
        rest = self.messages[self.system is not None :]
        self.messages = [{"role": "system", "content": text}, *rest] if text else rest

    def reset(self) -> None:
        """Remove all messages except the system message."""
        self.messages = self.messages[: self.system is not None]

    def restore(self, messages: Sequence[Message]) -> None:
        """Continue another dialog.

        Raises:
            InputError: When the messages are not a dialog.
        """
        self._format.check(messages)
        self.messages = list(messages)

    @property
    def is_full(self) -> bool:
        """Whether the last answer reached the end of the model's context."""
        return len(self._session.ids) >= self._model.config.max_seq_len - 1

    def answer(self, text: str) -> Generator[str, None, None]:
        """Send a user message and yield the answer, piece by piece, as the model generates it.

        Both messages are then part of the history. If the generator is closed or interrupted, the history has the
        answer so far. After an error the history is unchanged. A prefilled answer is yielded from its beginning.

        Args:
            text: The user message.

        Raises:
            InputError: When the dialog does not fit the model's context, or the chat format cannot encode it, before
                anything is generated.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        if self._prefill:
            answer = {"role": "assistant", "content": self._prefill}
            prompt = self._format.encode([*messages, answer], continue_final_message=True)
        else:
            prompt = self._format.encode(messages)
        context = self._model.config.max_seq_len
        if len(prompt) >= context:
            raise InputError(
                f"the dialog has {len(prompt)} tokens, but the model's context holds {context} for dialog and answer;"
                " begin a new dialog, or shorten the message"
            )
        pieces = generate(
            self._model,
            self._tokenizer,
            prompt,
            end_ids=self._format.end_ids,
            session=self._session,
            **self._settings,
        )
        return self._written(messages, pieces)

    def _written(self, messages: list[Message], pieces: Iterator[str]) -> Generator[str, None, None]:
        text = ""
        try:
            for piece in chain(filter(None, [self._prefill]), pieces):
                text += piece
                yield piece
        except Exception:
            raise
        except BaseException:  # closed, or Ctrl-C
            self.messages = [*messages, {"role": "assistant", "content": text}]
            raise
        self.messages = [*messages, {"role": "assistant", "content": text}]
