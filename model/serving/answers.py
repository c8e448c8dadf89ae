"""The text of an answer from the ids of its tokens: characters, stop strings, calls, and log-probabilities."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from bpe import Tokenizer
from bpe.streaming import StopStrings
from model.serving.calls import CallReader, Piece

if TYPE_CHECKING:
    from model.serving.texts import Chosen

Finish = Literal["stop", "length", "tool_calls", "error"]


class ShownToken(NamedTuple):
    """A token with its log-probability, as a response shows it."""

    content: bytes
    logprob: float
    top: list[tuple[bytes, float]]
    """The likeliest tokens at its place."""
    offset: int
    """Where the token begins in the text of the answer, in characters."""


class TokenTexts:
    """The bytes of tokens. Special tokens have none in an answer, except for those that mark calls.

    Args:
        tokenizer: The tokenizer.
        end_ids: The ids that end an answer.
        marks: Texts of added tokens that an answer shows, such as "<tool_call>".
    """

    def __init__(self, tokenizer: Tokenizer, end_ids: Collection[int], marks: Collection[str] = ()) -> None:
        self._tokenizer = tokenizer
        special = tokenizer.special_tokens
        self._ends = frozenset(end_ids)
        self._unprinted = self._ends.union(id for text, id in special.items() if text not in marks)

    def is_end(self, token: int) -> bool:
        """Return whether a token ends an answer, and is no part of it."""
        return token in self._ends

    def printed(self, token: int) -> bytes:
        """Return the bytes of a token in an answer."""
        return b"" if token in self._unprinted else self.shown(token)

    def beginning(self, token: int) -> bytes:
        """Return the bytes of the first token of a message, without the space that encoding adds to a text.

        The chat template writes the message as a text of its own. With that space it would have another one.
        """
        content = self.printed(token)
        return self._tokenizer.decode_bytes([token]) if content.startswith(b" ") else content

    def shown(self, token: int) -> bytes:
        """Return the bytes of a token; those of its text for a special token, and none for an id without a token."""
        try:
            return self._tokenizer.decode_single_token_bytes(token)
        except KeyError:  # a gap in the vocabulary: the model has a row, the tokenizer has no token
            return b""


@dataclass
class Delta:
    """What is new of an answer."""

    pieces: list[Piece] = field(default_factory=list)
    tokens: list[ShownToken] = field(default_factory=list)
    finish: Finish | None = None
    error: str | None = None
    is_callers_fault: bool = False
    """Whether the error is due to the request."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is new."""
        return not (self.pieces or self.tokens or self.finish)


class Answer:
    """One text that is being generated.

    Args:
        texts: The bytes of tokens.
        stops: The stop strings.
        calls: What recognises calls; None for an answer without tools.
        is_message: Whether the answer is a message, rather than the continuation of a text.
        first: Text that the answer begins with, such as the prompt of a completion with echo.
    """

    def __init__(
        self,
        texts: TokenTexts,
        stops: Collection[str] = (),
        calls: CallReader | None = None,
        *,
        is_message: bool = True,
        first: str = "",
    ) -> None:
        self.finish: Finish | None = None
        """Why the answer ended; None while it is being generated."""
        self.error: str | None = None
        """What went wrong, if `finish` is "error"."""
        self.count = 0
        """The number of generated tokens, including the one that ended the answer."""
        self._texts, self._calls = texts, calls
        self._decoder, self._stops = codecs.getincrementaldecoder("utf-8")("replace"), StopStrings(stops)
        self._begins = is_message
        self._first = first
        self._decoded = self._released = len(first)  # characters: read, and certain to be part of the answer
        self._held: deque[ShownToken] = deque()  # whose first character is not yet certain

    def feed(self, chosen: Chosen) -> Delta:
        """Take the next token, and return what is now certain."""
        if chosen.finish == "error":
            self.finish, self.error = "error", chosen.error
            return Delta(finish="error", error=chosen.error, is_callers_fault=chosen.is_callers_fault)
        text = "" if chosen.id is None else self._characters(chosen.id, chosen)
        self._decoded += len(text)
        certain = self._stops.feed(text)
        if chosen.finish is not None and not self._stops.stopped:
            certain += self._stops.feed(self._decoder.decode(b"", True)) + self._stops.flush()
        is_stopped = self._stops.stopped
        self._released += len(certain)
        pieces = self._pieces(certain, is_end=is_stopped or chosen.finish is not None)
        has_ended = is_stopped or (self._calls is not None and self._calls.is_finished)
        if has_ended or chosen.finish is not None:
            self.finish = "length" if chosen.finish == "length" and not has_ended else "stop"
            if self.finish == "stop" and self._calls is not None and self._calls.calls:
                self.finish = "tool_calls"
        return Delta(pieces, self._certain_tokens(is_whole=self.finish is not None and not is_stopped), self.finish)

    def begin(self) -> Delta:
        """Return the text that the answer begins with before any token."""
        return Delta([Piece(self._first)] if self._first else [])

    def _characters(self, id: int, chosen: Chosen) -> str:
        """Return the characters that are complete with a token."""
        self.count += 1
        if chosen.logprob is not None and not self._texts.is_end(id):
            top = [(self._texts.shown(each), logprob) for each, logprob in chosen.top]
            self._held.append(ShownToken(self._texts.shown(id), chosen.logprob, top, self._decoded))
        content = self._texts.printed(id)
        if self._begins and content:
            self._begins = False
            content = self._texts.beginning(id)
        return self._decoder.decode(content)

    def _pieces(self, text: str, is_end: bool) -> list[Piece]:
        if self._calls is None:
            return [Piece(text)] if text else []
        pieces = self._calls.feed(text)
        return pieces + self._calls.flush() if is_end else pieces

    def _certain_tokens(self, is_whole: bool) -> list[ShownToken]:
        """Return the tokens whose first character is part of the answer; all that are left if it is whole."""
        tokens = []
        while self._held and (is_whole or self._held[0].offset < self._released):
            tokens.append(self._held.popleft())
        return tokens


def logprobs_of_chat(tokens: Sequence[ShownToken]) -> list[Mapping[str, object]]:
    """Return the log-probabilities of tokens as a chat completion shows them."""
    return [
        {**_with_bytes(token.content, token.logprob), "top_logprobs": [_with_bytes(*each) for each in token.top]}
        for token in tokens
    ]


def _with_bytes(content: bytes, logprob: float) -> dict[str, object]:
    return {"token": _text(content), "logprob": max(logprob, -9999.0), "bytes": [*content]}


def logprobs_of_completion(tokens: Sequence[ShownToken]) -> dict[str, object]:
    """Return the log-probabilities of tokens as a completion shows them."""
    tops = []
    for token in tokens:
        top = {_named(content): max(logprob, -9999.0) for content, logprob in reversed(token.top)}
        tops.append(top | {_named(token.content): max(token.logprob, -9999.0)})
    return {
        "tokens": [_named(token.content) for token in tokens],
        "token_logprobs": [max(token.logprob, -9999.0) for token in tokens],
        "top_logprobs": tops,
        "text_offset": [token.offset for token in tokens],
    }


def _named(content: bytes) -> str:
    """Return a token as OpenAI's completions name it; those that are not UTF-8 must have different names."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return f"bytes:{_text(content)}"


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in content)
