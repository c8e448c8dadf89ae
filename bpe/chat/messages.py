"""What a dialog is, and what a way to write one for a model has to offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from bpe.errors import InputError

Message = Mapping[str, Any]

ROLES = ("system", "user", "assistant", "tool", "ipython")


class ChatFormat(ABC):
    """How a dialog is written for a model."""

    @property
    @abstractmethod
    def end_ids(self) -> frozenset[int]:
        """The tokens that end the assistant's turn."""

    @abstractmethod
    def encode(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """The ids of a dialog.

        Args:
            messages: the dialog; see the module.
            add_generation_prompt: end with what introduces the assistant's answer, for the model to go on with.
            tools: what the model may call, as JSON schemas, where the format has a place for them.

        Raises:
            InputError: a message is not of the expected form, or the format has no way to write it.
        """

    @abstractmethod
    def encode_with_mask(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> tuple[list[int], list[bool]]:
        """The ids of a whole dialog, and for each whether the assistant wrote it: what a model is to learn from it.

        That is what the assistant says and calls, and the token that ends its turn; not the header that introduces it.

        Raises:
            InputError: as for `encode`, or it cannot be told what the assistant wrote.
        """


def check_messages(messages: Sequence[Message]) -> None:
    """
    Raises:
        InputError: they are not of the form that the module describes; it gives the number of the message.
    """
    if not isinstance(messages, (list, tuple)):
        raise InputError(f"a dialog is a list of messages; this is a {type(messages).__name__}")
    for number, message in enumerate(messages, 1):
        wrong = _what_is_wrong(message)
        if wrong:
            raise InputError(f"message {number}: {wrong}")


def _what_is_wrong(message: Any) -> str | None:
    if not isinstance(message, Mapping):
        return f'expected {{"role": ..., "content": ...}}, not a {type(message).__name__}'
    role, content, calls = message.get("role"), message.get("content"), message.get("tool_calls")
    if role not in ROLES:
        return f"the role is {role!r}; there are {', '.join(ROLES)}"
    if calls is not None and (role != "assistant" or not isinstance(calls, (list, tuple))):
        return (
            f'"tool_calls" is a list in a message of the assistant; here it is a {type(calls).__name__} of the {role}'
        )
    for call in calls or ():
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            return 'a tool call is {"name": TEXT, "arguments": {...}}, or that under "function"'
    if not isinstance(content, str) and not (content is None and calls):
        return f'"content" must be a text; it is {"missing" if content is None else f"a {type(content).__name__}"}'
    return None
