"""The chat format of Llama 3, 3.1, 3.2 and 3.3."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from bpe.chat.messages import ChatFormat, Message, check_messages, is_part, prompts_for_answer
from bpe.errors import InputError
from bpe.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant", "tool", "ipython")


class Llama3Chat(ChatFormat):
    """Llama 3's chat format. The ids are those of Meta's own ``ChatFormat`` in ``llama_models``.

    Content is encoded as it is, including white space. A call of one of Meta's built-in tools is written in Meta's
    notation, any other call as JSON. An assistant's message with ``"stop_reason": "end_of_message"`` ends with
    <|eom_id|>, because it waits for the result of a tool. A part ``{"type": "image"}`` of a user's content is
    <|image|>, as in Llama 3.2 Vision.

    The ids of a longer dialog begin with those of a shorter one, so a KV cache can be reused.

    Args:
        tokenizer: A tokenizer with Llama 3's special tokens.

    Raises:
        InputError: When the tokenizer lacks special tokens of the format.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        missing = missing_llama3_tokens(tokenizer)
        if missing:
            raise InputError(f"the tokenizer lacks {', '.join(missing)}, which Llama 3's chat format needs")
        self._tokenizer = tokenizer
        self._special = tokenizer.vocabulary.added_ids

    @property
    def end_ids(self) -> frozenset[int]:
        names = ("<|end_of_text|>", "<|eot_id|>", "<|eom_id|>")
        ends = (self._special[name] for name in names if name in self._special)
        return frozenset(self._tokenizer.eos_ids).union(ends)

    def check(self, messages: Sequence[Message]) -> None:
        check_messages(messages)
        for number, message in enumerate(messages, 1):
            wrong = _what_is_wrong(message, "<|image|>" in self._special)
            if wrong:
                raise InputError(f"message {number}: {wrong}")

    def encode(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        continue_final_message: bool | str = False,
    ) -> list[int]:
        if documents:
            raise InputError("Llama 3's chat format cannot list documents; write them in a message")
        prompted = prompts_for_answer(add_generation_prompt, continue_final_message, messages)
        if continue_final_message not in (True, False, "content"):
            raise InputError(f"Llama 3's chat format cannot continue {continue_final_message!r}; only the content")
        ids = [id for part, _ in self._parts(messages, tools) for id in part]
        if continue_final_message:
            last = messages[-1]
            if last.get("tool_calls") or last.get("content") is None:
                raise InputError(f"message {len(messages)}: only a message with nothing but content can be continued")
            return ids[:-1]
        return ids + self._header("assistant") if prompted else ids

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        continue_final_message: bool | str = False,
    ) -> str:
        ids = self.encode(messages, add_generation_prompt, tools, documents, continue_final_message)
        return self._tokenizer.decode(ids)

    def writes(self, field: str) -> bool:
        return field in ("role", "content", "tool_calls", "stop_reason", "tools")

    def encode_with_mask(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        learned: Collection[int] | None = None,
    ) -> tuple[list[int], list[bool]]:
        ids: list[int] = []
        mask: list[bool] = []
        self.check(messages)
        for number, message in enumerate(messages, 1):
            if any(text is None for text in _texts(message.get("content"))):
                raise InputError(f"message {number}: it has an image, which training does not read; use text")
        for part, written in self._parts(messages, tools, learned):
            ids += part
            mask += [written] * len(part)
        return ids, mask

    def _parts(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None,
        learned: Collection[int] | None = None,
    ) -> Iterator[tuple[list[int], bool]]:
        """Yield the ids in pieces, each with whether the assistant wrote it and it is in `learned`."""
        self.check(messages)
        if tools:
            raise InputError("Llama 3's chat format cannot list tools; describe them in the system message")
        yield [self._special["<|begin_of_text|>"]], False
        for number, message in enumerate(messages, 1):
            yield self._header(message["role"]), False
            try:
                is_learned = learned is None or number - 1 in learned
                yield self._body(message), message["role"] == "assistant" and is_learned
            except InputError as error:
                raise InputError(f"message {number}: {error}") from error

    def _header(self, role: str) -> list[int]:
        encode = self._tokenizer.encode_ordinary
        role = "ipython" if role == "tool" else role
        return [
            self._special["<|start_header_id|>"],
            *encode(role),
            self._special["<|end_header_id|>"],
            *encode("\n\n"),
        ]

    def _body(self, message: Message) -> list[int]:
        calls = [_name_and_arguments(call) for call in message.get("tool_calls") or ()]
        ids = [self._token("<|python_tag|>")] if calls and calls[0][0] == "code_interpreter" else []
        for text in (*_texts(message.get("content")), *(_written_call(*call) for call in calls)):
            ids += [self._special["<|image|>"]] if text is None else self._tokenizer.encode_ordinary(text)
        waits = message["role"] == "assistant" and message.get("stop_reason") == "end_of_message"
        return [*ids, self._token("<|eom_id|>" if waits else "<|eot_id|>")]

    def _token(self, name: str) -> int:
        if name not in self._special:
            raise InputError(
                f"it needs the special token {name}, which this tokenizer lacks; use a tokenizer of Llama 3.1 or later"
            )
        return self._special[name]


def missing_llama3_tokens(tokenizer: Tokenizer) -> list[str]:
    """Return the special tokens that every dialog in Llama 3's format needs and the tokenizer lacks."""
    needed = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    return [name for name in needed if name not in tokenizer.vocabulary.added_ids]


def _what_is_wrong(message: Message, takes_images: bool) -> str | None:
    role, content = message["role"], message.get("content")
    if role not in ROLES:
        return f"the role is {role!r}; it must be one of {', '.join(ROLES)}"
    if content is None and not message.get("tool_calls"):
        return '"content" must be text; it is missing'
    parts = content if isinstance(content, (list, tuple)) and all(map(is_part, content)) else ()
    shown = takes_images and role == "user"
    is_written = [part["type"] == "text" or (shown and part == {"type": "image"}) for part in parts]
    other = next((part["type"] for part, written in zip(parts, is_written, strict=True) if not written), None)
    if other is not None:
        return f"its content has a part of type {other!r}, which Llama 3's chat format cannot write; use text"
    return None


def _texts(content: Any) -> list[str | None]:
    """Return the texts of content: one of each part if it has any, None for an image; JSON if it is another value."""
    if content is None or isinstance(content, str):
        return [content or ""]
    if isinstance(content, (list, tuple)) and all(map(is_part, content)):
        return [
            None if part["type"] == "image" else part["text"] for part in content
        ]  # each is encoded by itself, as Meta's code does
    try:
        return [json.dumps(content, ensure_ascii=False)]
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f'"content" is not JSON ({error})') from error


def _name_and_arguments(call: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    function = call.get("function", call)
    name, arguments = function["name"], function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the arguments of the call to {name!r} are not JSON ({error})") from error
    if not isinstance(arguments, Mapping):
        raise InputError(f"the arguments of the call to {name!r} are not a JSON object")
    return name, dict(arguments)


def _written_call(name: str, arguments: dict[str, Any]) -> str:
    wanted = {"brave_search": "query", "wolfram_alpha": "query", "photogen": "query", "code_interpreter": "code"}
    if name not in wanted:
        try:
            return json.dumps({"type": "function", "name": name, "parameters": arguments})
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"the arguments of the call to {name!r} are not JSON ({error})") from error
    if wanted[name] not in arguments:
        raise InputError(f"the call to {name!r} lacks the argument {wanted[name]!r}")
    value = arguments[wanted[name]]
    return str(value) if name == "code_interpreter" else f'{name}.call(query="{value}")'
