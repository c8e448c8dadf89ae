"""Dialogs rendered by a template, with the special tokens of the template told apart from the same text in messages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice, pairwise
from typing import Any, NamedTuple, TypeVar

from bpe.chat.jinja_template import GENERATION_BEGIN, GENERATION_END, JinjaTemplate, TemplateFailure
from bpe.chat.tracing import DATA, TEMPLATE, UNKNOWN, Traced, joined, origin_of, traced, without_surrogates_traced
from bpe.errors import InputError
from bpe.tokenizer import Tokenizer

# Names of the field with a message's reasoning. The first is the standard one.
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")

_CONTINUED = "CONTINUE_FINAL_MESSAGE_TAG"
_Text = TypeVar("_Text", bound=str)


class RenderedPart(NamedTuple):
    """A part of a rendered dialog: text, or an added token that the template wrote."""

    begin: int
    """Where the part begins in the text, in characters."""
    text: str
    special: int | None
    """The id of the added token; None for text."""


@dataclass(frozen=True)
class TemplateDialog:
    """A dialog to render with a template.

    Attributes:
        tokenizer: The tokenizer, whose special tokens the template writes.
        template: The template.
        messages: The messages, as plain JSON values.
        tools: The tools, as plain JSON values, or None.
        documents: The documents, as plain JSON values, or None.
        variables: Other variables of the template, as plain JSON values.
        tokens: Variables that are texts of special tokens, such as bos_token.
        functions: Functions of the template.
        continued: The field of the last message that the model continues, such as "content"; None if there is none.
        origin: The file or directory of the template, which errors name; "" for none.
    """

    tokenizer: Tokenizer
    template: JinjaTemplate
    messages: list[dict[str, Any]]
    tools: Any
    documents: Any
    variables: Mapping[str, Any]
    tokens: Mapping[str, str]
    functions: Mapping[str, Any]
    continued: str | None = None
    origin: str = ""

    def with_messages(self, messages: list[dict[str, Any]]) -> TemplateDialog:
        """Return the same dialog with other messages."""
        return replace(self, messages=messages)

    def render(self, add_generation_prompt: bool = False, until: int | None = None) -> str:
        """Return the text of the dialog, or only of the messages before index `until`."""
        try:
            return self._cut(self._rendered(self.messages[:until], add_generation_prompt))
        except TemplateFailure as error:
            place = f"{self.origin}: " if self.origin else ""
            remedy = self._remedy(self.messages[:until], add_generation_prompt)
            raise TemplateFailure(f"{place}{error}; {remedy}") from error.__cause__

    def _rendered(self, messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        return self.template.render(
            {
                **self.functions,
                **self.tokens,
                **self.variables,
                **self._dialog(self._tagged(messages)),
                "add_generation_prompt": add_generation_prompt,
            }
        )

    def _remedy(self, messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        """Return what to do about messages that the template rejects."""
        others = [message for message in messages if message.get("role") != "system"]
        if others and len(others) < len(messages):
            with suppress(InputError):
                self._rendered(others, add_generation_prompt)
                return "it takes no system message, so leave that out (bpe chat: without --system, or /system none)"
        return "change the messages, or use another template"

    def _dialog(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        return {"messages": messages, "tools": self.tools, "documents": self.documents}

    @cached_property
    def _tag(self) -> str:
        """What marks the end of the message that the model continues. Its space shows whether the template trims.

        It is transformers' own, so that a template that measures the message measures the same.
        """
        taken = _CONTINUED in json.dumps(self.messages)
        return (_unused(1, self.template.source, str(self.messages))[0] if taken else _CONTINUED) + " "

    def _tagged(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return messages with a tag at the end of the one that the model continues."""
        if self.continued is None:
            return messages
        last = dict(messages[-1]) if messages else {}
        fields = REASONING_FIELDS if self.continued in REASONING_FIELDS else (self.continued,)
        text = last.get(self.continued)
        for field in [name for name in fields if last.get(name) == text]:
            last[field] = _with_tag(text, self._tag)
            if last[field] is None:
                raise InputError(f'message {len(messages)}: it has no text in "{self.continued}" to continue')
        return [*messages[:-1], last]

    def _cut(self, text: _Text, disguised: bool = False) -> _Text:
        """Return the text up to the end of the message that the model continues, as transformers finds it."""
        if self.continued is None:
            return text
        tag = self._tag
        end = str.rfind(text, tag.rstrip())
        whole = "" if disguised else _last_text(self.messages[-1][self.continued]).strip()
        if end < 0 or whole not in text:
            raise InputError(
                f'message {len(self.messages)}: the chat template does not write its "{self.continued}" as it is, so'
                " it cannot be continued"
            )
        cut = text[:end] if text[end : end + len(tag)] == tag else text[:end].rstrip()
        return cut  # type: ignore[return-value]  # a slice of a Traced is a Traced

    def rendering(self, text: str, add_generation_prompt: bool = False, marked: bool = False) -> Rendering:
        """Find out what in `text`, the rendered dialog, is a special token and what only looks like one.

        The dialog is rendered once more with strings that know where each of their characters comes from
        (`bpe.chat.tracing`). A special token was written by the template if all its characters come from the template.
        It was not if one of them comes from the dialog. This holds for whatever the template does with the text: it
        sees the same text as without tracing, and what tracing cannot follow has an unknown origin.

        If the special tokens are the same whether text of unknown origin counts as the template's or as the dialog's,
        that settles it. Otherwise the dialog is disguised (see `_disguised`).

        Args:
            text: What `render` returned.
            add_generation_prompt: As it was given to `render`.
            marked: Whether to mark the beginning and the end of ``{% generation %}`` blocks.

        Raises:
            InputError: When it is unclear what is a special token.
        """
        marks = Marks(*_unused(3, text, self._tag, *self.tokenizer.special_tokens_set))
        given = {
            **self.functions,
            **traced(self.tokens, TEMPLATE),
            **traced(self.variables, DATA),
            **traced(self._dialog(self.messages), DATA),
            "messages": [
                {
                    traced(key, DATA): traced(value, TEMPLATE if key == "role" else DATA)
                    for key, value in message.items()
                }
                for message in self._tagged(self.messages)
            ],
            "add_generation_prompt": add_generation_prompt,
            **(traced(marks.variables, TEMPLATE) if marked else {}),
        }
        without, written = marks.removed(without_surrogates_traced(self.template.render_traced(given)))
        without = self._cut(without)
        if without == text:
            # Tokens may strip the white space around them, which is not hidden if no token has any.
            spaced = any(character.isspace() for token in self.tokenizer.special_tokens_set for character in token)
            hidden = re.compile(r"(?s)." if spaced else r"\S")
            origin = origin_of(without)
            shadows = (_masked(text, origin, which, hidden, marks.hidden) for which in (DATA, DATA + UNKNOWN))
            candidates = [Rendering(self.tokenizer, text, shadow, written) for shadow in shadows]
            if candidates[0].specials == candidates[1].specials:
                return candidates[1]
        return self._disguised(text, add_generation_prompt, marks, marked)

    def _disguised(self, text: str, add_generation_prompt: bool, marks: Marks, marked: bool) -> Rendering:
        """Find out the same from a rendering with disguised messages.

        In their strings, each character that occurs in a special token in `text` is replaced by a stand-in, which
        occurs in no special token. So all special tokens that are still there were written by the template. Since one
        character replaces one, the template can trim and slice as before. It must not look at these characters.

        Raises:
            InputError: When the disguised dialog is not rendered as the same text.
        """
        found = [token for token in self.tokenizer.special_tokens_set if token in text]
        characters = sorted({*"".join(found)})
        stand_ins = _unused(len(characters), text, self._tag, *self.tokenizer.special_tokens_set, *marks)
        table = str.maketrans(dict(zip(characters, stand_ins, strict=True)))
        # The template may compare with words of its own, so a word that is in no special token stays as it is.
        kept = {word for word in self.template.words if not any(word in token for token in found)}

        def disguise(value: str) -> str:
            return value if value in kept else value.translate(table)

        messages = [
            {key: value if key == "role" else map_strings(value, disguise) for key, value in message.items()}
            for message in self.messages
        ]
        disguised = self.template.render(
            {
                **self.functions,
                **self.tokens,
                **map_strings(dict(self.variables), disguise),
                **map_strings(self._dialog([]), disguise),
                "messages": self._tagged(messages),
                "add_generation_prompt": add_generation_prompt,
                **(marks.variables if marked else {}),
            }
        )
        without, written = marks.removed(Traced(disguised))
        shadow = str.translate(self._cut(without, disguised=True), {})  # a plain string
        originals = str.maketrans(dict(zip(stand_ins, characters, strict=True)))
        if shadow.translate(originals) != text:
            raise InputError(self._unclear(text))
        return Rendering(self.tokenizer, text, shadow, written)

    def _unclear(self, text: str) -> str:
        """Say which messages contain special tokens that the template branches on."""
        matcher = self.tokenizer.vocabulary.special_matcher
        found = [matcher.first_in(json.dumps(message, ensure_ascii=False).encode()) for message in self.messages]
        suspects = [f"message {number} has {token}" for number, token in enumerate(found, 1) if token is not None]
        if suspects:
            return (
                "the chat template branches on message text that contains a special token or a part of one"
                f" ({', '.join(suspects)}); remove that text from the messages"
            )
        return (
            f"it is unclear whether {matcher.first_in(text)} in the rendered dialog comes from the chat template or"
            " from a message; the template builds it in a way that cannot be followed"
        )

    def written_by(self, rendering: Rendering, learned: Collection[int]) -> list[tuple[int, int]]:
        """Return where in the text the ``{% generation %}`` blocks of some messages begin and end.

        A message wrote the blocks that it adds to the dialog before it.

        Args:
            rendering: The whole dialog, with its blocks.
            learned: Indices of the messages.

        Raises:
            InputError: When the blocks cannot be assigned to messages.
        """
        counts = [0]
        for number, message in enumerate(self.messages, 1):
            part = self.with_messages(self.messages[:number])
            try:
                counts.append(len(part.rendering(part.render(), marked=True).written))
            except InputError:  # many templates reject a dialog that does not end with an answer
                counts.append(-1 if message["role"] == "assistant" else counts[-1])
        if counts[-1] != len(rendering.written) or any(after < before for before, after in pairwise(counts)):
            raise InputError(
                "an answer is not to be learned, but the chat template does not show which {% generation %} block is"
                " its own; remove the weights, or end the dialog with the last answer to learn"
            )
        return [span for index in sorted(learned) for span in rendering.written[counts[index] : counts[index + 1]]]

    def answers(self, rendering: Rendering, learned: Collection[int] | None = None) -> Iterator[tuple[int, int]]:
        """Yield where in the text each of the assistant's answers begins and ends: all text after its prompt.

        Args:
            rendering: The whole dialog.
            learned: Indices of the answers; default: all.

        Raises:
            InputError: When an answer does not follow its prompt.
        """
        ends = {part.begin + len(part.text) for part in rendering.parts() if part.special is not None}
        for index, message in enumerate(self.messages):
            if message["role"] == "assistant" and (learned is None or index in learned):
                asked, answered = self.render(True, until=index), self.render(until=index + 1)
                if not (answered.startswith(asked) and rendering.text.startswith(answered)):
                    raise InputError(
                        f"message {index + 1}: the chat template writes this answer differently after its prompt, or"
                        " when the dialog continues, so no mask can be made; end the dialog with this answer, or add"
                        " {% generation %} blocks to the template"
                    )
                end = len(answered.rstrip())
                yield len(asked), end if end in ends else len(answered)


class Marks(NamedTuple):
    """Characters that do not occur in a dialog, for marks in its rendering."""

    begin: str
    """Marks the beginning of an answer."""
    end: str
    """Marks the end of an answer."""
    hidden: str
    """Stands for characters that cannot be a part of a special token."""

    @property
    def variables(self) -> dict[str, str]:
        """The variables of a template that write the marks."""
        return {GENERATION_BEGIN: self.begin, GENERATION_END: self.end}

    def removed(self, text: Traced) -> tuple[Traced, list[tuple[int, int]]]:
        """Return the text without marks, and where in it the text between marks begins and ends."""
        pieces: list[str] = []
        written: list[tuple[int, int]] = []
        size = begun = done = 0
        for mark in re.finditer(f"[{self.begin}{self.end}]", text):
            pieces.append(text[done : mark.start()])
            size += mark.start() - done
            done = mark.end()
            if mark[0] == self.begin:
                begun = size
            else:
                written.append((begun, size))
        return joined([*pieces, text[done:]]), written


class Rendering:
    """A rendered dialog in which the special tokens of the template are known.

    Args:
        tokenizer: The tokenizer.
        text: The rendered text.
        shadow: The text with other characters where text of the dialog must not become a part of a special token.
        written: Where ``{% generation %}`` blocks begin and end, in characters of the text.
    """

    def __init__(self, tokenizer: Tokenizer, text: str, shadow: str, written: list[tuple[int, int]]) -> None:
        self._tokenizer = tokenizer
        self.text = text
        self.written = written
        self._shadow = shadow

    @cached_property
    def _added(self) -> list[tuple[int, int, int]]:
        """Where each added token of the template begins and ends, in characters, and its id."""
        return _added_tokens(self._tokenizer, self._shadow)

    @cached_property
    def specials(self) -> list[tuple[int, int, int]]:
        """The special ones among them."""
        return self._special(self._added)

    @property
    def is_plain(self) -> bool:
        """Whether these are all special tokens in the text, so that it can be encoded as a whole."""
        return self._shadow == self.text or self.specials == self._special(_added_tokens(self._tokenizer, self.text))

    def _special(self, added: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        return [token for token in added if self._tokenizer.is_special_token(token[2])]

    def parts(self) -> Iterator[RenderedPart]:
        """Yield ordinary texts and special tokens in turn."""
        done = 0
        for begin, end, special in self._added:
            yield RenderedPart(done, self.text[done:begin], None)
            yield RenderedPart(begin, self.text[begin:end], special)
            done = end
        yield RenderedPart(done, self.text[done:], None)


def _added_tokens(tokenizer: Tokenizer, text: str) -> list[tuple[int, int, int]]:
    matcher = tokenizer.special_matchers.allowed("all")
    if matcher is None:
        return []
    content = text.encode()
    found, place, done = [], 0, 0
    for begin, end, special in matcher.all_in(content):
        start = place + len(content[done:begin].decode())
        place = start + len(content[begin:end].decode())
        found.append((start, place, special))
        done = end
    return found


def _masked(text: str, origin: str, which: str, hidden: re.Pattern[str], stand_in: str) -> str:
    """Return the text with a stand-in for each hidden character of certain origins."""
    pieces, done = [], 0
    for run in re.finditer(f"[{which}]+", origin):
        pieces += [text[done : run.start()], hidden.sub(stand_in, text[run.start() : run.end()])]
        done = run.end()
    return "".join([*pieces, text[done:]])


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """Return JSON values with each string changed.

    The result has only JSON's own types, of which the sandbox knows what is safe.

    Raises:
        InputError: When a value is not one of JSON.
    """
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {map_strings(key, change): map_strings(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [map_strings(item, change) for item in value]
    raise InputError(f"the dialog contains a {type(value).__name__}, which is not a JSON value")


def _with_tag(value: Any, tag: str) -> Any:
    """Return text with a tag at its end, or parts with a tag in the last one of text; None if there is no text."""
    if isinstance(value, str):
        return value + tag
    parts = value if isinstance(value, list) else []
    last = next((index for index in range(len(parts) - 1, -1, -1) if _has_text(parts[index])), None)
    if last is None:
        return None
    return [*parts[:last], {**parts[last], "text": parts[last]["text"] + tag}, *parts[last + 1 :]]


def _last_text(value: Any) -> str:
    """Return text, or that of the last part with text."""
    if isinstance(value, str):
        return value
    return next((part["text"] for part in reversed(value) if _has_text(part)), "")


def _has_text(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)


def _unused(count: int, *texts: str) -> list[str]:
    """Return private-use characters that do not occur in the texts.

    Raises:
        InputError: When there are not as many.
    """
    text = "".join(texts)
    private = chain(range(0x10FFFD, 0xFFFFF, -1), range(0xFFFFD, 0xEFFFF, -1), range(0xF8FF, 0xDFFF, -1))
    unused = list(islice((character for character in map(chr, private) if character not in text), count))
    if len(unused) < count:
        raise InputError("the dialog uses every private-use character, and the chat template needs some of them")
    return unused
