"""Dialogs rendered by a template, with the special tokens of the template told apart from the same text in messages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, NamedTuple

from bpe.chat.jinja_template import GENERATION_BEGIN, GENERATION_END, JinjaTemplate
from bpe.errors import InputError
from bpe.tokenizer import Tokenizer


class RenderedPart(NamedTuple):
    """A part of a rendered dialog: ordinary text, or a special token."""

    begin: int
    """Where the part begins in the text, in characters."""
    text: str
    special: int | None
    """The id of the special token; None for ordinary text."""


class TemplateDialog:
    """A dialog to render with a template.

    Args:
        tokenizer: The tokenizer, whose special tokens the template writes.
        template: The template.
        messages: The messages, as plain JSON values.
        tools: The tools, as plain JSON values, or None.
        variables: Other variables of the template.
    """

    def __init__(
        self, tokenizer: Tokenizer, template: JinjaTemplate, messages: Any, tools: Any, variables: Mapping[str, Any]
    ) -> None:
        self._tokenizer = tokenizer
        self.template = template
        self._messages = messages
        self._tools = tools
        self._variables = variables

    def render(self, add_generation_prompt: bool = False, until: int | None = None) -> str:
        """Return the text of the dialog, or only of the messages before index `until`."""
        return self._render(self._messages[:until], self._tools, add_generation_prompt)

    def _render(self, messages: Any, tools: Any, add_generation_prompt: bool, **more: str) -> str:
        return self.template.render(
            {
                **self._variables,
                "messages": messages,
                "tools": tools,
                "documents": None,
                "add_generation_prompt": add_generation_prompt,
                **more,
            }
        )

    def rendering(self, text: str, add_generation_prompt: bool = False, marked: bool = False) -> Rendering:
        """Find out what in `text`, the rendered dialog, is a special token and what only looks like one.

        The dialog is rendered once more with disguised messages: in their strings, each character that occurs in a
        special token in `text` is replaced by a stand-in, which occurs in no special token. So all special tokens that
        are still there were written by the template. Since one character replaces one, the template can trim and slice
        as before.

        Args:
            text: What `render` returned.
            add_generation_prompt: As it was given to `render`.
            marked: Whether to mark the beginning and the end of ``{% generation %}`` blocks.

        Raises:
            InputError: When the disguised dialog is not rendered as the same text.
        """
        found = [token for token in self._tokenizer.special_tokens_set if token in text]
        characters = sorted({*"".join(found)})
        unused = list(islice(_absent_characters(text), len(characters) + 2))
        if len(unused) < len(characters) + 2:
            raise InputError("the dialog uses every private-use character, and the chat template needs some of them")
        begin, end, *stand_ins = unused
        table = str.maketrans(dict(zip(characters, stand_ins, strict=True)))
        # The template may compare with words of its own, so a word that is in no special token stays as it is.
        kept = {word for word in self.template.words if not any(word in token for token in found)}

        def disguise(value: str) -> str:
            return value if value in kept else value.translate(table)

        disguised = self._render(
            [
                {key: value if key == "role" else map_strings(value, disguise) for key, value in message.items()}
                for message in self._messages
            ],
            map_strings(self._tools, disguise),
            add_generation_prompt,
            **({GENERATION_BEGIN: begin, GENERATION_END: end} if marked else {}),
        )
        originals = str.maketrans(dict(zip(stand_ins, characters, strict=True)))
        rendering = Rendering(self._tokenizer, disguised, (begin, end), originals)
        if rendering.plain != text:
            raise InputError(self._ambiguous())
        return rendering

    def _ambiguous(self) -> str:
        """Say which messages contain special tokens that the template branches on."""
        texts = [json.dumps(message, ensure_ascii=False).encode() for message in self._messages]
        found = [self._tokenizer.vocabulary.special_matcher.first_in(text) for text in texts]
        suspects = [f"message {number} has {token}" for number, token in enumerate(found, 1) if token is not None]
        return (
            "the chat template branches on message text that contains a special token or a part of one"
            f" ({', '.join(suspects) or 'no message has a whole one'}); remove that text from the messages"
        )

    def answers(self, rendering: Rendering) -> Iterator[tuple[int, int]]:
        """Yield where in the text each of the assistant's answers begins and ends: all text after its prompt.

        Raises:
            InputError: When an answer does not follow its prompt.
        """
        ends = {part.begin + len(part.text) for part in rendering.parts() if part.special is not None}
        for index, message in enumerate(self._messages):
            if message["role"] == "assistant":
                asked, answered = self.render(True, until=index), self.render(until=index + 1)
                if not (answered.startswith(asked) and rendering.plain.startswith(answered)):
                    raise InputError(
                        f"message {index + 1}: the chat template writes this answer differently after its prompt, or"
                        " when the dialog continues, so no mask can be made; end the dialog with this answer, or add"
                        " {% generation %} blocks to the template"
                    )
                end = len(answered.rstrip())
                yield len(asked), end if end in ends else len(answered)


class Rendering:
    """A rendered dialog in which stand-ins replace some characters of the messages.

    Args:
        tokenizer: The tokenizer.
        text: The rendered text, with stand-ins and marks.
        marks: The characters that mark the beginning and the end of an answer.
        originals: The character that each stand-in replaces, as `str.translate` takes it.

    Attributes:
        plain: The text without marks and with the original characters.
        written: Where the text between marks begins and ends, in characters of `plain`.
    """

    def __init__(self, tokenizer: Tokenizer, text: str, marks: tuple[str, str], originals: Mapping[int, str]) -> None:
        self._tokenizer = tokenizer
        self._originals = originals
        self.written: list[tuple[int, int]] = []
        begin, end = marks
        text_parts: list[str] = []
        size = begun = 0
        for part in re.split(f"([{begin}{end}])", text):
            if part == begin:
                begun = size
            elif part == end:
                self.written.append((begun, size))
            else:
                size += len(part)
                text_parts.append(part)
        self._text = "".join(text_parts)
        self.plain = self._text.translate(self._originals)

    def parts(self) -> Iterator[RenderedPart]:
        """Yield ordinary texts and special tokens in turn."""
        content = self._text.encode()
        place = done = 0
        for begin, end, special in self._tokenizer.vocabulary.special_matcher.all_in(content):
            text = content[done:begin].decode()
            token = content[begin:end].decode()
            yield RenderedPart(place, text.translate(self._originals), None)
            yield RenderedPart(place + len(text), token, special)
            place += len(text) + len(token)
            done = end
        yield RenderedPart(place, content[done:].decode().translate(self._originals), None)


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


def _absent_characters(text: str) -> Iterator[str]:
    """Yield private-use characters that do not occur in a text."""
    private = chain(range(0x10FFFD, 0xFFFFF, -1), range(0xFFFFD, 0xEFFFF, -1), range(0xF8FF, 0xDFFF, -1))
    return (character for character in map(chr, private) if character not in text)
