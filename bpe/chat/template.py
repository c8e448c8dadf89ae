"""Chat templates in jinja, as checkpoints bring them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from io import StringIO
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from bpe.chat.messages import ChatFormat, Message, check_messages
from bpe.errors import InputError
from bpe.patterns import END_TOKENS
from bpe.text import without_surrogates
from bpe.tokenizer import Tokenizer

if TYPE_CHECKING:
    import jinja2

_MOST_CHARACTERS = 1 << 24
"""What a template may put out: more than any context holds."""


class TemplateChat(ChatFormat):
    """A chat template in jinja, as checkpoints bring it; the ids are those of transformers' ``apply_chat_template``.

    A special token is one where the template's own text makes it. Where the text of a message says the same, even
    in part, it stays text; that is the one difference from transformers. A template that decides by such text, such as
    one that cuts thoughts off at a special token "</think>", is refused for that dialog.

    Whether the ids of a longer dialog begin with those of a shorter one is for the template to say. Most do so. Those
    that write a system message into the last question, or leave thoughts out of earlier answers, do not.

    A template is a program. Its sandbox keeps it from files and from Python, and its output is bounded, but neither its
    time nor its memory can be.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: str | Mapping[str, str],
        bos_token: str | None = None,
        eos_token: str | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            tokenizer: whose special tokens the template writes.
            template: jinja, or several of them by name: "default", and "tool_use" for dialogs with tools.
            bos_token, eos_token: their texts, which templates use; eos_token ends the assistant's turn as well.
            variables: more of what the template may ask for, such as ``{"enable_thinking": False}``.

        Raises:
            InputError: the template cannot be compiled, or there is no default one.
            ModuleNotFoundError: jinja2 is not installed.
        """
        sources = {"default": template} if isinstance(template, str) else dict(template)
        if "default" not in sources:
            raise InputError(f"there is no default chat template among {', '.join(sources) or 'none'}")
        self._tokenizer = tokenizer
        self._templates = {name: _Template(source) for name, source in sources.items()}
        self._eos_token = eos_token
        given = {"bos_token": bos_token, "eos_token": eos_token, **(variables or {})}
        self._variables = {name: value for name, value in given.items() if value is not None}

    @cached_property
    def end_ids(self) -> frozenset[int]:
        special = self._tokenizer.special_tokens
        ends = {special[name] for name in (*END_TOKENS, self._eos_token) if name in special}
        try:  # what the template puts after an answer
            ids, mask = self.encode_with_mask([{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}])
        except InputError:
            return frozenset(ends)
        last = [id for id, written in zip(ids, mask, strict=True) if written][-1:]
        return frozenset(ends.union(id for id in last if self._tokenizer.is_special_token(id)))

    def encode(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        dialog = self._dialog(messages, tools)
        rendering = dialog.rendering(dialog.render(add_generation_prompt), add_generation_prompt)
        ids: list[int] = []
        for _, text, special in rendering.parts():
            ids += self._tokenizer.encode_ordinary(text) if special is None else [special]
        return ids

    def encode_with_mask(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> tuple[list[int], list[bool]]:
        """As `ChatFormat.encode_with_mask`.

        What the assistant wrote is what the template has within ``{% generation %}``, which some have for this. For
        others it is what an answer adds to the dialog that asks for it, up to the special token that ends it; which
        takes a template that goes on with a dialog as it began. A token that is the assistant's in part counts as its.
        """
        dialog = self._dialog(messages, tools)
        rendering = dialog.rendering(dialog.render(), marked=True)
        spans = rendering.written if dialog.template.marks_answers else list(dialog.answers(rendering))
        ids: list[int] = []
        mask: list[bool] = []
        for begin, text, special in rendering.parts():
            if special is None:
                part, places = self._tokenizer.encode_with_offsets(text)
            else:
                part, places = [special], [(0, len(text))]
            ids += part
            mask += _overlaps([(begin + start, begin + end) for start, end in places], spans)
        return ids, mask

    def _dialog(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None) -> _Dialog:
        check_messages(messages)
        template = self._templates.get("tool_use" if tools else "default", self._templates["default"])
        now = datetime.now()  # the same in all that is rendered for one dialog
        variables = {**self._variables, "strftime_now": lambda format: now.strftime(format)}
        return _Dialog(self._tokenizer, template, _plain(messages, "messages"), _plain(tools, "tools"), variables)


class _Template:
    """A compiled template, and what its source says."""

    def __init__(self, source: str) -> None:
        from jinja2 import nodes

        environment = _environment()
        try:
            tree = environment.parse(source)
            self._template = environment.from_string(source)
        except Exception as error:  # the compiler fails in ways of its own on deep nesting
            line = f"line {error.lineno}: " if hasattr(error, "lineno") else ""
            raise InputError(f"the chat template cannot be compiled: {line}{_one_line(error)}") from error
        constants = {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
        self.words = {*filter(str.isidentifier, constants), *(node.attr for node in tree.find_all(nodes.Getattr))}
        """What it may look for as a whole: names of fields, and values such as "object"."""
        self.marks_answers = re.search(r"\{%[-+]?\s*generation\s*[-+]?%\}", source) is not None

    def render(self, variables: Mapping[str, Any]) -> str:
        text, size = StringIO(), 0
        try:
            for piece in self._template.generate(variables):
                size += len(piece)
                if size > _MOST_CHARACTERS:
                    raise InputError(f"it puts out more than {_MOST_CHARACTERS} characters")
                text.write(piece)
        except Exception as error:  # a template can raise anything, and many raise what they want to say
            raise InputError(f"the chat template refuses the dialog or fails: {_one_line(error)}") from error
        return without_surrogates(text.getvalue())


class _Dialog:
    """A dialog under a template."""

    def __init__(
        self, tokenizer: Tokenizer, template: _Template, messages: Any, tools: Any, variables: Mapping[str, Any]
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.messages = messages
        self.tools = tools
        self._variables = variables

    def render(self, add_generation_prompt: bool = False, until: int | None = None) -> str:
        """The text of the dialog, or of its messages before the one with the index `until`."""
        return self._render(self.messages[:until], self.tools, add_generation_prompt)

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

    def rendering(self, text: str, add_generation_prompt: bool = False, marked: bool = False) -> _Rendering:
        """What in `text`, the rendered dialog, is a special token, and what is only written like one.

        The dialog is rendered once more. In its strings, each character that any special token in `text` is made of
        is replaced by another that stands for it, which none of them has; so those that are there again are all of
        the template's making. Since one character stands for one, the template may trim and cut as before.

        Raises:
            InputError: it does not come out as the same text.
        """
        found = [token for token in self.tokenizer.special_tokens_set if token in text]
        characters = sorted({*"".join(found)})
        unused = list(islice(_absent(text), len(characters) + 2))
        if len(unused) < len(characters) + 2:
            raise InputError("the dialog holds every character there is, and the chat template needs some for itself")
        begin, end, *stand_ins = unused
        table = str.maketrans(dict(zip(characters, stand_ins, strict=True)))
        # The template may compare with its own words, of which no special token is made.
        kept = {word for word in self.template.words if not any(word in token for token in found)}

        def disguise(value: str) -> str:
            return value if value in kept else value.translate(table)

        disguised = self._render(
            [
                {key: value if key == "role" else _mapped(value, disguise) for key, value in message.items()}
                for message in self.messages
            ],
            _mapped(self.tools, disguise),
            add_generation_prompt,
            **({_BEGIN: begin, _END: end} if marked else {}),
        )
        originals = str.maketrans(dict(zip(stand_ins, characters, strict=True)))
        rendering = _Rendering(self.tokenizer, disguised, (begin, end), originals)
        if rendering.plain != text:
            raise InputError(
                "the chat template decides by text in the dialog that a special token could be made of, so that it"
                f" cannot be told which is which ({', '.join(self._suspects()) or 'none is there as a whole'});"
                " leave that text out of the messages"
            )
        return rendering

    def _suspects(self) -> list[str]:
        texts = [json.dumps(message, ensure_ascii=False).encode() for message in self.messages]
        found = [self.tokenizer._all_special.first_in(text) for text in texts]
        return [f"message {number} has {token}" for number, token in enumerate(found, 1) if token is not None]

    def answers(self, rendering: _Rendering) -> Iterator[tuple[int, int]]:
        """Where in the text the assistant's answers are: all that follows upon the prompt for each."""
        ends = {begin + len(text) for begin, text, special in rendering.parts() if special is not None}
        for index, message in enumerate(self.messages):
            if message["role"] == "assistant":
                asked, answered = self.render(True, until=index), self.render(until=index + 1)
                if not (answered.startswith(asked) and rendering.plain.startswith(answered)):
                    raise InputError(
                        f"message {index + 1}: this chat template writes an answer otherwise than it asks for it, or"
                        " otherwise once the dialog goes on; for a mask, end the dialog with the answer, or give the"
                        " template {% generation %} blocks"
                    )
                end = len(answered.rstrip())
                yield len(asked), end if end in ends else len(answered)


class _Rendering:
    """A rendered dialog, in which characters of the messages' texts are replaced by others."""

    def __init__(self, tokenizer: Tokenizer, text: str, marks: tuple[str, str], originals: Mapping[int, str]) -> None:
        self._tokenizer = tokenizer
        self._originals = originals
        self.written: list[tuple[int, int]] = []
        """Begin and end of what stands between the marks, in characters of `plain`."""
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
        """The text as it is meant."""

    def parts(self) -> Iterator[tuple[int, str, int | None]]:
        """Ordinary texts, and special tokens with their ids, in turn; each with its place in `plain`."""
        content = self._text.encode()
        place = done = 0
        for begin, end, special in self._tokenizer._all_special.all_in(content):
            text = content[done:begin].decode()
            token = content[begin:end].decode()
            yield place, text.translate(self._originals), None
            yield place + len(text), token, special
            place += len(text) + len(token)
            done = end
        yield place, content[done:].decode().translate(self._originals), None


# What a generation block puts out before and after its content; in a rendering without them, nothing.
_BEGIN, _END = "generation_begin", "generation_end"


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    """Jinja as transformers sets it up for chat templates."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}

        def parse(self, parser: Parser) -> list[nodes.Node]:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            begin, end = (nodes.Output([nodes.Name(name, "load")]).set_lineno(line) for name in (_BEGIN, _END))
            return [begin, nodes.Scope(body).set_lineno(line), end]

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson  # jinja's own escapes what HTML has a meaning for
    environment.globals["raise_exception"] = raise_exception
    return environment


def _absent(text: str) -> Iterator[str]:
    """Characters for private use that do not occur in a text."""
    private = chain(range(0x10FFFD, 0xFFFFF, -1), range(0xFFFFD, 0xEFFFF, -1), range(0xF8FF, 0xDFFF, -1))
    return (character for character in map(chr, private) if character not in text)


def _plain(value: Any, name: str) -> Any:
    try:
        return _mapped(value, without_surrogates)
    except RecursionError:
        raise InputError(f"the {name} are nested too deeply") from None


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """JSON with each string changed, and nothing in it but what JSON has: the sandbox knows what is safe in that."""
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_mapped(key, change): _mapped(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mapped(item, change) for item in value]
    raise InputError(f"the dialog holds a {type(value).__name__}; expected what JSON has")


def _overlaps(places: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[bool]:
    """Whether each place has a part of a span; both are in order."""
    result, next_span = [], 0
    for begin, end in places:
        while next_span < len(spans) and spans[next_span][1] <= begin:
            next_span += 1
        result.append(next_span < len(spans) and spans[next_span][0] < end)
    return result


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
