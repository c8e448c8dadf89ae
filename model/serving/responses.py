"""Responses of OpenAI's API, whole or as server-sent events."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from model.serving.answers import Delta, ShownToken, logprobs_of_chat, logprobs_of_completion
from model.serving.calls import CallFormat, Piece
from model.serving.requests import Options

DONE = b"data: [DONE]\n\n"
"""The event that ends a stream."""
WAITING = b": waiting\n\n"
"""A comment, which clients ignore; it shows proxies and clients that the connection lives."""

_dump = json.JSONEncoder(separators=(",", ":")).encode  # with escapes: some clients split lines at U+2028


@dataclass
class _Call:
    id: str
    name: str
    arguments: list[str] = field(default_factory=list)


@dataclass
class Collected:
    """An answer so far."""

    texts: list[str] = field(default_factory=list)
    calls: list[_Call] = field(default_factory=list)
    tokens: list[ShownToken] = field(default_factory=list)
    finish: str | None = None

    @property
    def text(self) -> str:
        """The text of the answer."""
        return "".join(self.texts)


class Form:
    """The form of the responses to one request.

    Args:
        model: The name of the model.
        fingerprint: The `system_fingerprint`.
        options: The options of the request.
        count: The number of answers.
    """

    kind, stream_kind, prefix = "", "", ""

    def __init__(self, model: str, fingerprint: str, options: Options, count: int) -> None:
        self.id = self.prefix + secrets.token_hex(12)
        self._options = options
        self.answers = [Collected() for _ in range(count)]
        self._facts = {"created": int(time.time()), "model": model, "system_fingerprint": fingerprint}
        head = _dump({"id": self.id, "object": self.stream_kind, **self._facts})
        self._head = f"data: {head[:-1]}" + (',"usage":null' if options.include_usage else "") + ',"choices":['

    def begin(self, index: int) -> list[Mapping[str, Any]]:
        """Return the choices with which the stream of an answer begins."""
        return []

    def choices(self, index: int, delta: Delta) -> list[Mapping[str, Any]]:
        """Return what is new of an answer, as choices of a stream."""
        raise NotImplementedError

    def choice(self, index: int) -> dict[str, Any]:
        """Return a whole answer, as a choice."""
        raise NotImplementedError

    def collect(self, index: int, delta: Delta) -> None:
        """Append what is new to an answer."""
        answer = self.answers[index]
        answer.tokens += delta.tokens
        answer.finish = delta.finish or answer.finish
        for piece in delta.pieces:
            self._collect(answer, piece)

    def _collect(self, answer: Collected, piece: Piece) -> None:
        answer.texts.append(piece.text)

    def events(self, index: int, delta: Delta) -> bytes:
        """Return what is new of an answer, as events."""
        return b"".join(map(self.event, self.choices(index, delta)))

    def event(self, choice: Mapping[str, Any]) -> bytes:
        """Return a choice of a stream as an event."""
        return f"{self._head}{_dump(choice)}]}}\n\n".encode()

    def usage_event(self, usage: Mapping[str, Any]) -> bytes:
        """Return the event with the usage, which has no choices."""
        value = {"id": self.id, "object": self.stream_kind, **self._facts, "choices": [], "usage": usage}
        return f"data: {_dump(value)}\n\n".encode()

    def whole(self, usage: Mapping[str, Any]) -> dict[str, Any]:
        """Return the response with all answers."""
        choices = [self.choice(index) for index in range(len(self.answers))]
        return {"id": self.id, "object": self.kind, **self._facts, "choices": choices, "usage": usage}


class ChatForm(Form):
    """The form of a chat completion."""

    kind, stream_kind, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl-"

    def __init__(
        self, model: str, fingerprint: str, options: Options, count: int, calls: CallFormat | None = None
    ) -> None:
        super().__init__(model, fingerprint, options, count)
        self._calls = calls

    def begin(self, index: int) -> list[Mapping[str, Any]]:
        return [self._choice(index, {"role": "assistant", "content": "", "refusal": None})]

    def choices(self, index: int, delta: Delta) -> list[Mapping[str, Any]]:
        made: list[Mapping[str, Any]] = []
        tokens = delta.tokens
        for piece in delta.pieces:
            self._collect(self.answers[index], piece)
            if piece.call is None:
                made.append(self._choice(index, {"content": piece.text}, tokens))
            else:
                made.append(self._choice(index, {"tool_calls": [self._call_delta(index, piece)]}, tokens))
            tokens = []
        if tokens:
            made.append(self._choice(index, {"content": ""}, tokens))
        if delta.finish is not None:
            made.append(self._choice(index, {}, [], delta.finish))
        return made

    def _choice(
        self, index: int, delta: Mapping[str, Any], tokens: Sequence[ShownToken] = (), finish: str | None = None
    ) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": self._logprobs(tokens) if tokens else None,
                "finish_reason": finish}  # fmt: skip

    def _call_delta(self, index: int, piece: Piece) -> dict[str, Any]:
        assert piece.call is not None
        if piece.name is None:
            return {"index": piece.call, "function": {"arguments": piece.text}}
        call = self.answers[index].calls[piece.call]
        function = {"name": call.name, "arguments": ""}
        return {"index": piece.call, "id": call.id, "type": "function", "function": function}

    def _collect(self, answer: Collected, piece: Piece) -> None:
        if piece.call is None:
            super()._collect(answer, piece)
        elif piece.name is not None:
            assert self._calls is not None
            answer.calls.append(_Call(self._calls.new_id(), piece.name))
        else:
            answer.calls[piece.call].arguments.append(piece.text)

    def choice(self, index: int) -> dict[str, Any]:
        answer = self.answers[index]
        text = answer.text
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text if text or not answer.calls else None,
            "refusal": None,
        }
        if answer.calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": "".join(call.arguments)},
                }
                for call in answer.calls
            ]
        return {"index": index, "message": message, "logprobs": self._logprobs(answer.tokens),
                "finish_reason": answer.finish}  # fmt: skip

    def _logprobs(self, tokens: Sequence[ShownToken]) -> dict[str, Any] | None:
        if self._options.logprobs is None:
            return None
        return {"content": logprobs_of_chat(tokens), "refusal": None}


class CompletionForm(Form):
    """The form of a completion."""

    kind, stream_kind, prefix = "text_completion", "text_completion", "cmpl-"

    def choices(self, index: int, delta: Delta) -> list[Mapping[str, Any]]:
        text = "".join(piece.text for piece in delta.pieces)
        return [self._choice(index, text, delta.tokens, delta.finish)]

    def choice(self, index: int) -> dict[str, Any]:
        answer = self.answers[index]
        return self._choice(index, answer.text, answer.tokens, answer.finish, is_whole=True)

    def _choice(
        self, index: int, text: str, tokens: Sequence[ShownToken], finish: str | None, is_whole: bool = False
    ) -> dict[str, Any]:
        has_logprobs = self._options.logprobs is not None and (tokens or is_whole)
        logprobs = logprobs_of_completion(tokens) if has_logprobs else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


def usage_of(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    """Return the numbers of tokens of a request.

    Args:
        prompt: Tokens of the prompts.
        completion: Tokens that were generated.
        cached: Tokens of the prompts that were in memory already.
    """
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def error_event(error: Mapping[str, Any]) -> bytes:
    """Return the event that ends a stream with an error."""
    return f"data: {_dump({'error': error})}\n\n".encode()
