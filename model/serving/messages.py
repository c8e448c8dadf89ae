"""The dialog of a request: its messages and the tools that the model may call."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from model.serving.fields import Fields, kind_of, shown
from model.serving.refusals import Refusal

MOST_MESSAGES = 4096
MOST_IN_PARTS = 32
"""Messages whose content has several parts. To find out how a chat template reads those takes a rendering for each."""
MOST_TOOLS = 128
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # as in OpenAI's API
_ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True)
class ToolChoice:
    """Whether the model may or must call tools."""

    kind: Literal["none", "auto", "required", "named"] = "none"
    name: str | None = None
    """The tool that must be called, for "named"."""


def read_messages(value: Any) -> list[dict[str, Any]]:
    """Return the messages of a request in the form of `bpe.chat`.

    Raises:
        Refusal: When a message is wrong; the error names its place.
    """
    if not isinstance(value, list):
        raise Refusal(f"messages is {kind_of(value)}; it must be a list of messages", "messages")
    if not value:
        raise Refusal("messages is empty; give at least one message", "messages")
    if len(value) > MOST_MESSAGES:
        raise Refusal(f"messages has {len(value):,} messages; it may have at most {MOST_MESSAGES:,}", "messages")
    called: dict[str, str] = {}  # id of a call -> name of the tool
    messages = [_message(Fields.of(message, f"messages[{place}]"), called) for place, message in enumerate(value)]
    in_parts = [place for place, message in enumerate(messages) if isinstance(message["content"], list)]
    if len(in_parts) > MOST_IN_PARTS:
        place = f"messages[{in_parts[MOST_IN_PARTS]}].content"
        raise Refusal(
            f"{place} has several parts, as the contents of {MOST_IN_PARTS} messages before it; give texts", place
        )
    return messages


def _message(fields: Fields, called: dict[str, str]) -> dict[str, Any]:
    role = fields.choice("role", *_ROLES)
    if role is None:
        raise fields.refusal("role", "is missing; give system, user, assistant or tool")
    message: dict[str, Any] = {"role": role}
    calls = _calls(fields) if role == "assistant" else []
    content = _content(fields, is_needed=not calls)
    message["content"] = content
    name = fields.text("name", 64)
    if role == "assistant":
        for field in ("function_call", "audio"):
            fields.refuse(field, "leave it out")
        fields.refuse("refusal", "put its text into content")
        fields.refuse("annotations", "leave it out", [])
        if (reasoning := fields.text("reasoning_content")) is not None:
            message["reasoning_content"] = reasoning
        if calls:
            message["tool_calls"] = calls
            called.update({call["id"]: call["function"]["name"] for call in calls})
    if role == "tool":
        id = fields.text("tool_call_id")
        if id is None:
            raise fields.refusal("tool_call_id", "is missing; give the id of the call that it answers")
        if id not in called:
            raise fields.refusal("tool_call_id", f"is {shown(id)}, which no message before it calls; give that id")
        name = name or called[id]
        if name != called[id]:
            raise fields.refusal("name", f"is {shown(name)}, but the call {shown(id)} is to {shown(called[id])}")
        message["tool_call_id"] = id
    if name is not None:
        message["name"] = name
    fields.finish()
    return message


def _content(fields: Fields, is_needed: bool) -> str | list[dict[str, str]] | None:
    """Take the content of a message, which is text or parts that are text; one part is the same as its text."""
    value = fields.any("content")
    if isinstance(value, str):
        return value
    if value is None:
        if is_needed:
            raise fields.refusal("content", "is missing; give a text")
        return None
    if not isinstance(value, list):
        raise fields.refusal("content", f"is {kind_of(value)}; it must be a string, or a list of parts with text")
    if not value:
        raise fields.refusal("content", "is empty; give a text")
    texts = []
    for place, item in enumerate(value):
        part = Fields.of(item, fields.place(f"content[{place}]"))
        kind = part.any("type")
        if kind != "text":
            raise part.refusal("type", f"is {shown(kind)}; the server reads text only", "unsupported_value")
        text = part.text("text")
        if text is None:
            raise part.refusal("text", "is missing; give a text")
        part.finish()
        texts.append(text)
    return texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]


def _calls(fields: Fields) -> list[dict[str, Any]]:
    """Take the calls of a message of the assistant."""
    calls = []
    for place, value in enumerate(fields.items("tool_calls", MOST_TOOLS) or ()):
        call = Fields.of(value, fields.place(f"tool_calls[{place}]"))
        call.choice("type", "function")
        id = call.needed("id", "the id of the call")
        if not isinstance(id, str):
            raise call.refusal("id", f"is {kind_of(id)}; it must be a string")
        function = Fields.of(call.needed("function", "the function that is called"), call.place("function"))
        name = function.needed("name", "the name of the function")
        if not isinstance(name, str):
            raise function.refusal("name", f"is {kind_of(name)}; it must be a string")
        arguments = function.text("arguments")
        try:
            is_object = isinstance(json.loads(arguments or "{}"), dict)
        except (ValueError, RecursionError):
            is_object = False
        if not is_object:
            raise function.refusal("arguments", "is not a JSON object; give the arguments as JSON")
        function.finish()
        call.finish()
        calls.append({"id": id, "type": "function", "function": {"name": name, "arguments": arguments or "{}"}})
    return calls


def read_tools(fields: Fields) -> list[dict[str, Any]]:
    """Take the tools that the model may call, as the chat template lists them.

    Raises:
        Refusal: When a tool is wrong; the error names its place.
    """
    tools: list[dict[str, Any]] = []
    for place, value in enumerate(fields.items("tools", MOST_TOOLS) or ()):
        tool = Fields.of(value, f"tools[{place}]")
        if tool.any("type") != "function":
            raise tool.refusal("type", 'must be "function"; other kinds of tools are not supported')
        function = Fields.of(tool.needed("function", "the function"), tool.place("function"))
        name = function.needed("name", "the name of the function")
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            raise function.refusal(
                "name", f"is {shown(name)}; it must be 1 to 64 letters, digits, underscores and dashes"
            )
        if any(each["function"]["name"] == name for each in tools):
            raise function.refusal("name", f"is {shown(name)}, as that of another tool; give each its own name")
        described: dict[str, Any] = {"name": name}
        description = function.text("description")
        if description is not None:
            described["description"] = description
        parameters = function.any("parameters")
        if parameters is not None and not isinstance(parameters, dict):
            raise function.refusal("parameters", f"is {kind_of(parameters)}; it must be a JSON schema")
        described["parameters"] = parameters or {"type": "object", "properties": {}}
        function.flag("strict")  # arguments follow the schema wherever calls are required
        function.finish()
        tool.finish()
        tools.append({"type": "function", "function": described})
    return tools


def read_tool_choice(fields: Fields, tools: Sequence[Mapping[str, Any]]) -> ToolChoice:
    """Take whether the model may or must call tools.

    Raises:
        Refusal: When the field is wrong, or asks for a tool that is not given.
    """
    value = fields.any("tool_choice")
    names = [tool["function"]["name"] for tool in tools]
    if value is None:
        return ToolChoice("auto" if tools else "none")
    if isinstance(value, dict):
        choice = Fields.of(value, "tool_choice")
        if choice.any("type") != "function":
            raise choice.refusal("type", 'must be "function"; allowed_tools and custom tools are not supported')
        function = Fields.of(choice.needed("function", "an object with the name of a tool"), "tool_choice.function")
        name = function.any("name")
        if name not in names:
            raise function.refusal("name", f"is {shown(name)}, which is not among the tools; give the name of a tool")
        function.finish()
        choice.finish()
        return ToolChoice("named", name)
    if value not in ("none", "auto", "required"):
        raise fields.refusal("tool_choice", f'is {shown(value)}; it must be "none", "auto", "required" or an object')
    if value == "required" and not tools:
        raise fields.refusal("tool_choice", 'is "required", but there are no tools; give tools')
    return ToolChoice(value if tools else "none")
