"""Jinja templates of checkpoints: compiled in a sandbox, and rendered with bounded output."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from io import StringIO
from typing import TYPE_CHECKING, Any

from bpe.errors import InputError
from bpe.text import without_surrogates

if TYPE_CHECKING:
    import jinja2

_MOST_CHARACTERS = 1 << 24  # the most characters that a template may write: more than fit in any context

# The variables that a {% generation %} block writes before and after its content. Undefined ones write nothing.
GENERATION_BEGIN, GENERATION_END = "generation_begin", "generation_end"


class JinjaTemplate:
    """A compiled template.

    Args:
        source: The text of the template.

    Attributes:
        words: The words that the template may compare with as a whole: names of fields, and values such as "object".
        marks_answers: Whether the template marks the assistant's text by ``{% generation %}``.

    Raises:
        InputError: When the template cannot be compiled.
        ModuleNotFoundError: When jinja2 is not installed.
    """

    def __init__(self, source: str) -> None:
        from jinja2 import nodes

        environment = _environment()
        try:
            tree = environment.parse(source)
            self._template = environment.from_string(source)
        except Exception as error:  # on deep nesting, the compiler raises errors of many kinds
            line = f"line {error.lineno}: " if hasattr(error, "lineno") else ""
            raise InputError(f"the chat template cannot be compiled: {line}{_one_line(error)}") from error
        constants = {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
        self.words = {*filter(str.isidentifier, constants), *(node.attr for node in tree.find_all(nodes.Getattr))}
        self.marks_answers = re.search(r"\{%[-+]?\s*generation\s*[-+]?%\}", source) is not None

    def render(self, variables: Mapping[str, Any]) -> str:
        """Return the text that the template writes, without surrogates.

        Raises:
            InputError: When the template raises an error, or writes too much.
        """
        text, size = StringIO(), 0
        try:
            for piece in self._template.generate(variables):
                size += len(piece)
                if size > _MOST_CHARACTERS:
                    raise InputError(f"it writes more than {_MOST_CHARACTERS:,} characters")
                text.write(piece)
        except Exception as error:  # a template can raise any error, and many raise one to reject a dialog
            raise InputError(f"the chat template rejects the dialog or fails: {_one_line(error)}") from error
        return without_surrogates(text.getvalue())


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    """Return Jinja set up as transformers does for chat templates."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}

        def parse(self, parser: Parser) -> list[nodes.Node]:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            begin, end = (
                nodes.Output([nodes.Name(name, "load")]).set_lineno(line) for name in (GENERATION_BEGIN, GENERATION_END)
            )
            return [begin, nodes.Scope(body).set_lineno(line), end]

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson  # Jinja's own filter escapes the characters that are special in HTML
    environment.globals["raise_exception"] = raise_exception
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
