"""Dialogs fitted to what a template reads: arguments of calls as text or object, content as text, parts or object.

Programs write the same dialog in several forms. A form that the template can write stays as it is, as in transformers.
Another form is replaced: arguments as JSON text by the object, content in parts by its text, an object as content by
its JSON text. Rendering the dialog with probes in it shows which forms a template can write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from bpe.chat.messages import is_part
from bpe.errors import InputError

Messages = list[dict[str, Any]]

_PROBE = "probe7f3a"  # occurs in no dialog
_AS_VALUE = re.compile(rf"""['"]text\\?['"]: ?\\?['"]{_PROBE}""")  # JSON, or what Python prints


def fitted(messages: Messages, render: Callable[[Messages], str]) -> Messages:
    """Return the messages in the forms that a template can write.

    Args:
        messages: The messages.
        render: Returns the rendered dialog of other messages.

    Raises:
        InputError: When no form can be written; the error gives the number of the message.
    """
    contents = [message.get("content") for message in messages]
    if any(isinstance(content, (list, dict)) for content in contents):
        simple = [
            {**message, "content": _as_text(message["content"])} if "content" in message else message
            for message in messages
        ]
        simple = _with_arguments(simple, render)
        fitting = [_fitted_content(index, content, simple, render) for index, content in enumerate(contents)]
        return [
            {**message, "content": content} if "content" in message else message
            for message, content in zip(simple, fitting, strict=True)
        ]
    return _with_arguments(messages, render)


def _with_arguments(messages: Messages, render: Callable[[Messages], str]) -> Messages:
    """Decode arguments that are JSON text, once, unless the template writes such text as it is."""
    probe = f'{{"{_PROBE}": 0}}'
    probed = _change_arguments(messages, lambda number, function: probe)
    if probed == messages or probe in _attempt(render, probed):
        return messages
    return _change_arguments(messages, _decoded)


def _change_arguments(messages: Messages, change: Callable[[int, dict[str, Any]], Any]) -> Messages:
    changed = []
    for number, message in enumerate(messages, 1):
        calls = []
        for call in message.get("tool_calls") or ():
            function = call.get("function", call)
            if isinstance(function.get("arguments"), str):
                function = {**function, "arguments": change(number, function)}
            calls.append({**call, "function": function} if "function" in call else function)
        changed.append({**message, "tool_calls": calls} if calls else message)
    return changed


def _decoded(number: int, function: dict[str, Any]) -> Any:
    text = function["arguments"]
    try:
        return json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"message {number}: the arguments of the call to {function['name']!r} are not JSON ({error})"
        ) from error


def _fitted_content(index: int, content: Any, messages: Messages, render: Callable[[Messages], str]) -> Any:
    """Return the content of a message as the template can write it.

    Args:
        index: The index of the message.
        content: Its content.
        messages: The messages with text as content.
        render: Returns the rendered dialog of other messages.
    """
    if not isinstance(content, (list, dict)):
        return content

    def replaced(other: Any) -> Messages:
        return [*messages[:index], {**messages[index], "content": other}, *messages[index + 1 :]]

    def rendered(other: Any) -> str:
        return _attempt(render, replaced(other))

    if not (isinstance(content, list) and content and all(map(is_part, content))):
        probe = {_PROBE: _PROBE} if isinstance(content, dict) else [{_PROBE: _PROBE}]
        return content if _PROBE in rendered(probe) else _as_text(content)
    probe = [{**part, "text": _PROBE} if part["type"] == "text" else part for part in content]
    if not any(part["type"] == "text" for part in content):
        probe.append({"type": "text", "text": _PROBE})
    probed = rendered(probe)
    reads_parts = _PROBE in probed and not _AS_VALUE.search(probed)
    whole = rendered(content) if reads_parts else ""
    for place, part in enumerate(content):
        if part["type"] != "text" and (not reads_parts or rendered(content[:place] + content[place + 1 :]) == whole):
            _raise_own_reason(render, replaced(content))
            raise InputError(
                f"message {index + 1}: its content has a part of type {part['type']!r}, which the chat template cannot"
                " write; use text"
            )
    return content if reads_parts else _as_text(content)


def _as_text(content: Any) -> Any:
    """Return content as text: the text of its parts, or JSON. Text stays as it is."""
    if isinstance(content, list) and content and all(map(is_part, content)):
        return "\n".join(part["text"] for part in content if part["type"] == "text")
    return json.dumps(content, ensure_ascii=False) if isinstance(content, (list, dict)) else content


def _attempt(render: Callable[[Messages], str], messages: Messages) -> str:
    try:
        return render(messages)
    except InputError:  # the template cannot write this form
        return ""


def _raise_own_reason(render: Callable[[Messages], str], messages: Messages) -> None:
    """Raise the error by which the template itself rejects the messages, such as images beside a system message."""
    try:
        render(messages)
    except InputError as error:
        if type(error.__cause__).__name__ == "TemplateError":  # from raise_exception
            raise
