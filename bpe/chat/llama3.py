"""The chat format of Llama 3, 3.1, 3.2 and 3.3."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bpe.chat.messages import ChatFormat, Message, check_messages
from bpe.errors import InputError
from bpe.tokenizer import Tokenizer


class Llama3Chat(ChatFormat):
    """Llama 3's chat format. The ids are those of Meta's own ``ChatFormat`` in ``llama_models``.

    Content is encoded as it is, including white space. A call of one of Meta's built-in tools is written in Meta's
    notation, any other call as JSON. An assistant's message with ``"stop_reason": "end_of_message"`` ends with
    <|eom_id|>, because it waits for the result of a tool.

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
        self._special = tokenizer.special_tokens

    @property
    def end_ids(self) -> frozenset[int]:
        names = ("<|end_of_text|>", "<|eot_id|>", "<|eom_id|>")
        return frozenset(self._special[name] for name in names if name in self._special)

    def encode(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        ids = [id for part, _ in self._parts(messages, tools) for id in part]
        return ids + self._header("assistant") if add_generation_prompt else ids

    def encode_with_mask(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> tuple[list[int], list[bool]]:
        ids: list[int] = []
        mask: list[bool] = []
        for part, written in self._parts(messages, tools):
            ids += part
            mask += [written] * len(part)
        return ids, mask

    def _parts(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None
    ) -> Iterator[tuple[list[int], bool]]:
        """Yield the ids in pieces, each with whether the assistant wrote it."""
        check_messages(messages)
        if tools:
            raise InputError("Llama 3's chat format cannot list tools; describe them in the system message")
        yield [self._special["<|begin_of_text|>"]], False
        for number, message in enumerate(messages, 1):
            yield self._header(message["role"]), False
            try:
                yield self._body(message), message["role"] == "assistant"
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
        for text in (message.get("content") or "", *(_written_call(*call) for call in calls)):
            ids += self._tokenizer.encode_ordinary(text)
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
    return [name for name in needed if name not in tokenizer.special_tokens_set]


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
