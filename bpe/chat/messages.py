"""Messages of a dialog, and the interface of a chat format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from bpe.errors import InputError

Message = Mapping[str, Any]

ROLES = ("system", "user", "assistant", "tool", "ipython")


class ChatFormat(ABC):
    """A way to encode dialogs for a model."""

    @property
    @abstractmethod
    def end_ids(self) -> frozenset[int]:
        """The ids of the tokens that end the assistant's turn."""

    @abstractmethod
    def encode(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """Encode a dialog.

        Args:
            messages: The messages; see `bpe.chat`.
            add_generation_prompt: Whether to end with the tokens that introduce the assistant's answer, for the model
                to continue.
            tools: The tools that the model may call, as JSON schemas, if the format can list them.

        Returns:
            The ids.

        Raises:
            InputError: When a message does not have the expected form, or the format cannot express it.
        """

    @abstractmethod
    def encode_with_mask(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> tuple[list[int], list[bool]]:
        """Encode a whole dialog and mask what the assistant wrote, which a model is trained to predict.

        The mask covers the assistant's text and calls and the token that ends its turn, but not the header before it.

        Args:
            messages: The messages; see `bpe.chat`.
            tools: The tools that the model may call, as JSON schemas.

        Returns:
            The ids, and for each whether the assistant wrote it.

        Raises:
            InputError: As for `encode`, or when it is ambiguous what the assistant wrote.
        """


def check_messages(messages: Sequence[Message]) -> None:
    """Check that messages have the form that `bpe.chat` describes.

    Raises:
        InputError: When a message does not; the error gives its number.
    """
    if not isinstance(messages, (list, tuple)):
        raise InputError(f"a dialog must be a list of messages, not a {type(messages).__name__}")
    for number, message in enumerate(messages, 1):
        wrong = _what_is_wrong(message)
        if wrong:
            raise InputError(f"message {number}: {wrong}")


def _what_is_wrong(message: Any) -> str | None:
    if not isinstance(message, Mapping):
        return f'expected {{"role": ..., "content": ...}}, not a {type(message).__name__}'
    role, content, calls = message.get("role"), message.get("content"), message.get("tool_calls")
    if role not in ROLES:
        return f"the role is {role!r}; it must be one of {', '.join(ROLES)}"
    if calls is not None and (role != "assistant" or not isinstance(calls, (list, tuple))):
        return f'"tool_calls" must be a list in a message of the assistant, not a {type(calls).__name__} of the {role}'
    for call in calls or ():
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            return 'a tool call must be {"name": TEXT, "arguments": {...}}, or that under "function"'
    if not isinstance(content, str) and not (content is None and calls):
        return f'"content" must be text; it is {"missing" if content is None else f"a {type(content).__name__}"}'
    return None
