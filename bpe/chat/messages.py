"""Messages of a dialog, and the interface of a chat format."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from bpe.errors import InputError

Message = Mapping[str, Any]

_ROLE = re.compile(r"[\w.-]+( [\w.-]+)*")
_NEVER_CALL = ("system", "developer", "user", "tool", "ipython")
_TALKING = ("system", "developer", "user", "assistant")  # whose content is text; a tool's result can be any JSON value


class ChatFormat(ABC):
    """A way to encode dialogs for a model."""

    @property
    @abstractmethod
    def end_ids(self) -> frozenset[int]:
        """The ids of the tokens that end the assistant's turn."""

    def check(self, messages: Sequence[Message]) -> None:
        """Check that messages have a form that this format can express, as far as that shows without encoding them.

        Raises:
            InputError: When a message does not; the error gives its number.
        """
        check_messages(messages)

    def writes(self, field: str) -> bool:
        """Return whether the format looks at a field of messages, such as "tool_calls", or at "tools"."""
        return field in ("role", "content")

    @abstractmethod
    def encode(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        continue_final_message: bool | str = False,
    ) -> list[int]:
        """Encode a dialog.

        Args:
            messages: The messages; see `bpe.chat`.
            add_generation_prompt: Whether to end with the tokens that introduce the assistant's answer, for the model
                to continue. Default: yes, unless `continue_final_message` is given.
            tools: The tools that the model may call, as JSON schemas, if the format can list them. A tool may also be
                JSON text.
            documents: Documents that the answer is based on, such as ``{"title": ..., "text": ...}``, if the format
                can list them.
            continue_final_message: Whether to leave the last message open at the end of its content, for the model to
                continue, or the name of the field to continue, such as "reasoning_content".

        Returns:
            The ids.

        Raises:
            InputError: When a message does not have the expected form, or the format cannot express it.
        """

    @abstractmethod
    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        continue_final_message: bool | str = False,
    ) -> str:
        """Return a dialog as text. It no longer shows which special tokens are text of a message.

        The arguments and the errors are those of `encode`.
        """

    @abstractmethod
    def encode_with_mask(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        learned: Collection[int] | None = None,
    ) -> tuple[list[int], list[bool]]:
        """Encode a whole dialog and mask what the assistant wrote, which a model is trained to predict.

        The mask covers the assistant's text and calls and the token that ends its turn, but not the header before it.

        Args:
            messages: The messages; see `bpe.chat`.
            tools: The tools that the model may call, as JSON schemas.
            learned: Indices of the messages to mask; default: all. Other messages of the assistant are only read.

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


def prompts_for_answer(
    add_generation_prompt: bool | None, continue_final_message: bool | str, messages: Sequence[Message]
) -> bool:
    """Return whether a dialog ends with the tokens that introduce an answer; see `ChatFormat.encode`.

    Raises:
        InputError: When it should both end with them and continue its last message, or has no last message.
    """
    if not continue_final_message:
        return add_generation_prompt is not False
    if add_generation_prompt:
        raise InputError("use either add_generation_prompt or continue_final_message: a new answer, or the last one")
    if not messages:
        raise InputError("the dialog is empty, so there is no message to continue")
    return False


def is_part(value: Any) -> bool:
    """Return whether a value is a part of a message's content, such as ``{"type": "text", "text": ...}``."""
    return isinstance(value, Mapping) and isinstance(value.get("type"), str)


def tools_from(tools: Any) -> list[Any] | None:
    """Return tools as objects.

    Raises:
        InputError: When a tool is neither an object nor JSON text of an object.
    """
    if tools is None:
        return None
    if isinstance(tools, str):
        tools = _from_json(tools, "tools")
    if not isinstance(tools, (list, tuple)):
        raise InputError(f'"tools" must be a list of JSON schemas, not a {type(tools).__name__}')
    parsed = [_from_json(tool, f"tool {number}") if isinstance(tool, str) else tool for number, tool in
              enumerate(tools, 1)]  # fmt: skip
    for number, tool in enumerate(parsed, 1):
        if not isinstance(tool, Mapping):
            raise InputError(f"tool {number}: expected a JSON schema, not a {type(tool).__name__}")
    return parsed


def documents_from(documents: Any) -> list[Any] | None:
    """Return documents as a list of objects.

    Raises:
        InputError: When a document is not an object.
    """
    if documents is None:
        return None
    if not isinstance(documents, (list, tuple)):
        raise InputError(f'"documents" must be a list of objects, not a {type(documents).__name__}')
    for number, document in enumerate(documents, 1):
        if not isinstance(document, Mapping):
            raise InputError(f"document {number}: expected an object, not a {type(document).__name__}")
    return list(documents)


def _from_json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: not JSON ({error}); give a JSON schema") from error


def _what_is_wrong(message: Any) -> str | None:
    if not isinstance(message, Mapping):
        return f'expected {{"role": ..., "content": ...}}, not a {type(message).__name__}'
    role, content, calls = message.get("role"), message.get("content"), message.get("tool_calls")
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        return f"the role is {role!r}; it must be a word, such as system, user, assistant or tool"
    if calls is not None and (role in _NEVER_CALL or not isinstance(calls, (list, tuple))):
        return f'"tool_calls" must be a list in a message of the assistant, not a {type(calls).__name__} of the {role}'
    for call in calls or ():
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            return 'a tool call must be {"name": TEXT, "arguments": {...}}, or that under "function"'
    return _what_is_wrong_with(content, role)


def _what_is_wrong_with(content: Any, role: str) -> str | None:
    if content is None or isinstance(content, str) or role not in _TALKING:
        return None
    if not isinstance(content, (list, tuple)) or not all(map(is_part, content)):
        return f'"content" must be text, or a list of parts that have a "type"; it is a {type(content).__name__}'
    for number, part in enumerate(content, 1):
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            return f'part {number} of "content" has the type "text", but no "text"'
    return None
