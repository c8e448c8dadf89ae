"""A conversation with a model: its history, and a KV cache that goes on from answer to answer."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

from bpe import Tokenizer
from bpe.chat import ChatFormat, Message, check_messages
from bpe.errors import InputError
from model.generation.completions import generate
from model.generation.decoding import Model, Session


class Conversation:
    """Questions and answers, each of which has all that was said before as its context.

    The whole dialog is written for the model anew each time; what it has in common with what the model has read already
    is not read again.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        chat_format: ChatFormat,
        messages: Sequence[Message] = (),
        **settings: Any,
    ) -> None:
        """
        Args:
            messages: what was said before; see `bpe.chat`.
            settings: max_tokens and the like: what `generate` takes.
        """
        self.messages: list[Message] = []
        self._model = model
        self._tokenizer = tokenizer
        self._format = chat_format
        self._settings = settings
        self._session = Session(model)
        self.restore(messages)

    @property
    def system(self) -> str | None:
        """The system message, if the dialog begins with one."""
        first = self.messages[0] if self.messages else {}
        return first["content"] if first.get("role") == "system" else None

    @system.setter
    def system(self, text: str | None) -> None:
        rest = self.messages[self.system is not None :]
        self.messages = [{"role": "system", "content": text}, *rest] if text else rest

    def reset(self) -> None:
        """Forget what was said; the system message stays."""
        self.messages = self.messages[: self.system is not None]

    def restore(self, messages: Sequence[Message]) -> None:
        """Go on with another dialog.

        Raises:
            InputError: it is none.
        """
        check_messages(messages)
        self.messages = list(messages)

    @property
    def is_full(self) -> bool:
        """Whether the last answer went to the end of the model's context."""
        return len(self._session.ids) >= self._model.config.max_seq_len - 1

    def answer(self, text: str) -> Generator[str, None, None]:
        """Say something; yields the answer, piece by piece, as the model writes it.

        The history then has both. Where the generator is closed or interrupted, it has the answer so far; after an
        error it is as before.

        Raises:
            InputError: before anything is written, if the dialog does not fit into the model's context, or its format
                has no way to write it.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        prompt = self._format.encode(messages)
        context = self._model.config.max_seq_len
        if len(prompt) >= context:
            raise InputError(
                f"the dialog has {len(prompt)} tokens, and the context of the model holds {context}, the answer"
                " included; begin a new dialog, or say it in fewer words"
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
            for piece in pieces:
                text += piece
                yield piece
        except Exception:
            raise
        except BaseException:  # closed, or Ctrl-C
            self.messages = [*messages, {"role": "assistant", "content": text}]
            raise
        self.messages = [*messages, {"role": "assistant", "content": text}]
