"""A conversation with a model: its history, and a KV cache that is kept from answer to answer."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from bpe import Tokenizer
from bpe.arguments import checked
from bpe.chat import ChatFormat, Message
from bpe.errors import InputError
from model.generation.completions import Completions
from model.generation.decoding import Finish, GenerationTimes, Model, Session
from model.generation.grammar import Grammar
from model.generation.sampling import Sampling, SamplingOptions
from model.generation.speculation import Speculation, SpeculationCounts
from model.images import TiledImage

if TYPE_CHECKING:
    from typing_extensions import Unpack

_LEADING = ("system", "developer")  # roles of the messages that begin a dialog and are never forgotten
_CUT = "\ufffd"  # how a character looks whose last bytes are missing


class Conversation:
    """A dialog in which each answer has all previous messages as its context.

    Each turn encodes the whole dialog again. The model then reads only what follows the longest prefix in its cache.

    When the dialog outgrows the model's context, the model stops reading the oldest turns. A turn is a message of the
    user with all that follows it up to the next one. The system message stays. Forgetting makes the model read the rest
    again, because its cache begins with what is forgotten; therefore the rest is at most half of the context, so that
    forgetting is rare. An answer that itself reaches the end of the context continues after the same step. `messages`
    always holds the whole dialog.
    """

    @checked(options=SamplingOptions, settings=Sampling)
    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        chat_format: ChatFormat,
        messages: Sequence[Message] = (),
        *,
        prefill: str = "",
        forget: bool = True,
        max_tokens: int = 256,
        stop: str | Sequence[str] = (),
        images: Sequence[TiledImage] = (),
        grammar: Grammar | None = None,
        speculation: Speculation | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> None:
        """Start or continue a dialog.

        Args:
            model: The model.
            tokenizer: The tokenizer of the model.
            chat_format: How dialogs are encoded.
            messages: Previous messages; see `bpe.chat`.
            prefill: Text that each answer begins with.
            forget: Whether the model stops reading the oldest turns when its context is full. If not, an answer ends
                at the end of the context, and a question that no longer fits raises InputError.
            max_tokens: The largest number of tokens of an answer.
            stop: Strings that end an answer; see `generate`.
            images: Images that the first message of the user, of those that the model reads, begins with. They are no
                part of `messages`.
            grammar: What each answer must be; see `generate`. Such an answer ends at the end of the context.
            speculation: How tokens are proposed; see `generate`.
            **sampling: The fields of `Sampling`.

        Raises:
            InputError: When the messages are not a dialog.
        """
        self.messages: list[Message] = []
        """The whole dialog."""
        self.forgotten = 0
        """The number of the oldest messages after the system message that the model no longer reads."""
        self.prefill = prefill
        """Text that each answer begins with."""
        self.settings: dict[str, Any] = {"max_tokens": max_tokens, "stop": stop, "grammar": grammar, **sampling}
        """Settings of `generate`; changes apply to the next answer."""
        self.finish: Finish | None = None
        """Why the last answer ended; see `Completion.finish`. None if it was interrupted."""
        self.times = GenerationTimes()
        """Token counts and times of the last answer."""
        self.speculated = SpeculationCounts()
        """What speculation did in the last answer."""
        self._model = model
        self._tokenizer = tokenizer
        self._format = chat_format
        self._forget = forget
        self._images = images
        self.speculation = speculation
        """How tokens are proposed; None if they are not."""
        if speculation is not None:
            speculation.check(model, has_images=bool(images))
        self._session = Session(model)
        self._is_full = False
        self._repeats = 0  # how often the last answer was generated again
        self.restore(messages)

    def __repr__(self) -> str:
        return f"<Conversation: {len(self.messages)} messages>"

    @property
    def system(self) -> str | None:
        """The system message; None if the dialog does not begin with one."""
        first = self.messages[0] if self.messages else {}
        return first["content"] if first.get("role") == "system" else None

    @system.setter
    def system(self, text: str | None) -> None:
        rest = self.messages[self.system is not None :]
        self.messages = [{"role": "system", "content": text}, *rest] if text else rest

    def reset(self) -> None:
        """Remove all messages except the system message."""
        self.messages = self.messages[: self.system is not None]
        self.forgotten = 0

    def restore(self, messages: Sequence[Message]) -> None:
        """Continue another dialog.

        Raises:
            InputError: When the messages are not a dialog.
        """
        self._format.check(messages)
        self.messages = list(messages)
        self.forgotten = 0

    @property
    def context(self) -> int:
        """The number of tokens that the model's context holds, for dialog and answer."""
        return self._model.config.max_seq_len

    @property
    def used(self) -> int:
        """The number of tokens of the messages that the model reads, without those that introduce an answer.

        Raises:
            InputError: When the chat format cannot encode the dialog.
        """
        if not self.messages:
            return 0
        return len(self._format.encode(self._window(self.messages, self.forgotten), add_generation_prompt=False))

    @property
    def is_full(self) -> bool:
        """Whether the last answer ended because it reached the end of the model's context."""
        return self._is_full

    @property
    def question(self) -> str | None:
        """The text of the last message of the user; None if there is none, or it is not only text."""
        place = self._last_question()
        content = None if place is None else self.messages[place]["content"]
        return content if isinstance(content, str) else None

    def answer(self, text: str) -> Generator[str, None, None]:
        """Send a user message and yield the answer, piece by piece, as the model generates it.

        Both messages are then part of the history. If the generator is closed or interrupted, the history has the
        answer so far; if there is none yet, the history is unchanged. After an error the history is unchanged. A
        prefilled answer is yielded from its beginning.

        Args:
            text: The user message.

        Raises:
            InputError: When the message does not fit the model's context, or the chat format cannot encode the dialog,
                before anything is generated.
        """
        self._repeats = 0
        return self._answer([*self.messages, {"role": "user", "content": text}])

    def regenerate(self) -> Generator[str, None, None]:
        """Yield a new answer to the last message of the user; it then replaces the old answer in the history.

        If a seed is set, each repetition adds 1 to it. At a temperature of 0, the answer is the same again.

        Raises:
            InputError: When there is no message of the user; else as for `answer`.
        """
        place = self._last_question()
        if place is None:
            raise InputError("there is no message to answer again; send one first")
        self._repeats += 1
        return self._answer(self.messages[: place + 1])

    def undo(self) -> str:
        """Remove the last message of the user and all that follows it.

        Returns:
            The content of that message.

        Raises:
            InputError: When there is no message of the user.
        """
        place = self._last_question()
        if place is None:
            raise InputError("there is no message to take back")
        text: str = self.messages[place]["content"]
        self.messages = self.messages[:place]
        if self.forgotten >= len(self.messages) - _leading(self.messages):
            self.forgotten = 0  # what was forgotten may fit again
        return text

    def _last_question(self) -> int | None:
        places = range(len(self.messages) - 1, -1, -1)
        return next((place for place in places if self.messages[place]["role"] == "user"), None)

    def _answer(self, messages: list[Message]) -> Generator[str, None, None]:
        if self.prefill and self.settings["grammar"] is not None:
            raise InputError("a grammar describes a whole answer, so an answer cannot have a prefilled beginning, too")
        prompt = self._prompt(messages, self.prefill, self.settings["max_tokens"])
        if prompt is None or len(prompt) >= self.context:
            raise InputError(self._too_long(messages))
        return self._recorded(messages, self._pieces(messages, prompt))

    def _recorded(self, messages: list[Message], pieces: Iterator[str]) -> Generator[str, None, None]:
        text = ""
        try:
            for piece in pieces:
                text += piece
                yield piece
        except Exception:
            raise
        except BaseException:  # closed, or Ctrl-C
            if text:
                self.messages = [*messages, {"role": "assistant", "content": text}]
            raise
        self.messages = [*messages, {"role": "assistant", "content": text}]

    def _pieces(self, messages: list[Message], prompt: list[int]) -> Iterator[str]:
        """Yield an answer. Where it reaches the end of the context, forget the oldest turns and continue it."""
        self.finish, self._is_full, self.times = None, False, GenerationTimes()
        self.speculated = SpeculationCounts()
        settings = dict(self.settings)
        if settings.get("seed") is not None:
            settings["seed"] += self._repeats
        text, begun = self.prefill, bool(self.prefill) or settings["grammar"] is not None
        if text:
            yield text
        while True:
            completions = Completions(
                self._model,
                self._tokenizer,
                [prompt],
                end_ids=self._format.end_ids,
                session=self._session,
                images=self._images,
                speculation=self.speculation,
                **settings,
            )
            for completion, piece in completions:
                reached_end = completion.finish == "length" and len(completion.ids) < settings["max_tokens"]
                piece = piece.rstrip(_CUT) if reached_end else piece
                if piece and not begun:
                    piece, begun = self._beginning(piece, completions.text_of, completion.ids), True
                text += piece
                if piece:
                    yield piece
            self._add_times(completions.generation.times)
            self.speculated.add(completions.generation.speculated)
            (completion,) = completions.texts
            settings["max_tokens"] -= len(completion.ids)
            if completion.finish != "length" or settings["max_tokens"] <= 0:
                break
            longer = self._continued_prompt(messages, text, settings["max_tokens"])
            if longer is None:
                self._is_full = True
                break
            prompt = longer
        self.finish = completion.finish

    def _beginning(self, piece: str, text_of: Callable[[int], str | None], ids: Sequence[int]) -> str:
        """Return the first piece of an answer without the space that encoding adds to a text, as decoding removes it.

        The chat format writes the answer as a text of its own. With that space, it would have another one, and other
        ids than those that the model generated.
        """
        for id in ids if piece.startswith(" ") else ():
            token = text_of(id)
            if token and token.startswith(" "):
                return piece[len(token) - len(self._tokenizer.decode([id])) :]
        return piece

    def _continued_prompt(self, messages: list[Message], text: str, max_tokens: int) -> list[int] | None:
        """Return the prompt with fewer turns for the rest of an answer; None if none is left to forget."""
        if not self._forget or not text or self.settings["grammar"] is not None:
            return None
        before = self.forgotten
        try:
            prompt = self._prompt(messages, text, max_tokens)
        except InputError:  # a template that cannot leave a message open
            return None
        return prompt if prompt is not None and self.forgotten > before and len(prompt) < self.context else None

    def _prompt(self, messages: list[Message], text: str, max_tokens: int) -> list[int] | None:
        """Return the ids of a dialog and the beginning of its answer, and forget turns to make room for the rest.

        Args:
            messages: The whole dialog, up to a message of the user.
            text: The beginning of the answer.
            max_tokens: The number of tokens to make room for; a quarter of the context is enough.

        Returns:
            The ids; they may not leave room for the answer. None if no number of turns makes them fit.
        """

        @cache
        def encoded(forgotten: int) -> list[int]:
            window = self._window(messages, forgotten)
            if not text:
                return self._format.encode(window)
            return self._format.encode([*window, {"role": "assistant", "content": text}], continue_final_message=True)

        room = min(max_tokens, self.context // 4)
        if not self._forget or len(encoded(self.forgotten)) + room <= self.context:
            return encoded(self.forgotten)
        # Forget as few turns as leave half of the context free; else as few as leave room; else all but the last.
        turns = [turn for turn in _turns(messages) if turn > self.forgotten]
        for largest in (self.context // 2, self.context - room, self.context - 1):
            place = bisect_left(turns, -largest, key=lambda turn: -len(encoded(turn)))
            if place < len(turns):
                self.forgotten = turns[place]
                return encoded(self.forgotten)
        prompt = encoded(self.forgotten)
        return prompt if len(prompt) < self.context else None

    def _window(self, messages: Sequence[Message], forgotten: int) -> list[Message]:
        """Return the messages that the model reads."""
        lead = _leading(messages)
        window = [*messages[:lead], *messages[lead + forgotten :]]
        first = next((place for place, message in enumerate(window) if message["role"] == "user"), None)
        if self._images and first is not None:
            content = window[first]["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            window[first] = {**window[first], "content": [*({"type": "image"} for _ in self._images), *parts]}
        return window

    def _too_long(self, messages: list[Message]) -> str:
        """Return the message of the error for a dialog that does not fit, even without what can be forgotten."""
        last = _turns(messages)[-1] if self._forget else self.forgotten
        size = len(self._format.encode(self._window(messages, last)))
        if not self._forget:
            return (
                f"the dialog has {size:,} tokens, but the model's context holds {self.context:,} for dialog and answer;"
                " begin a new dialog, or shorten the message"
            )
        counted = " with the system message" if self.system is not None else ""
        return (
            f"the message has {size:,} tokens{counted}, but the model's context holds {self.context:,} for message and"
            " answer; shorten it"
        )

    def _add_times(self, times: GenerationTimes) -> None:
        self.times.prefill_tokens += times.prefill_tokens
        self.times.prefill_seconds += times.prefill_seconds
        self.times.decode_tokens += times.decode_tokens
        self.times.decode_seconds += times.decode_seconds


def _leading(messages: Sequence[Message]) -> int:
    """Return the number of messages at the beginning that are not part of a turn."""
    places = range(len(messages))
    return next((place for place in places if messages[place]["role"] not in _LEADING), len(messages))


def _turns(messages: Sequence[Message]) -> list[int]:
    """Return where each turn begins, counted from the first message that is not a system message."""
    body = messages[_leading(messages) :]
    return [place for place, message in enumerate(body) if place == 0 or message["role"] == "user"]
