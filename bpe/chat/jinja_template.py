"""Jinja templates of checkpoints: compiled in a sandbox, and rendered with bounded output.

Each template is compiled twice: as transformers does it, and so that each string carries its origin (see
`bpe.chat.tracing`). The first rendering decides what the text is, the second one only where it comes from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from bpe.chat.tracing import TEMPLATE, Traced, joined, origin_of, text_of, written
from bpe.errors import InputError
from bpe.text import without_surrogates

if TYPE_CHECKING:
    import jinja2

_MOST_CHARACTERS = 1 << 24  # the most characters that a template may write: more than fit in any context

# The variables that a {% generation %} block writes before and after its content. Undefined ones write nothing.
GENERATION_BEGIN, GENERATION_END = "generation_begin", "generation_end"


class TemplateFailure(InputError):
    """Raised when a template rejects a dialog or fails."""


class JinjaTemplate:
    """A compiled template.

    Args:
        source: The text of the template.

    Attributes:
        source: The text of the template.
        words: The words that the template may compare with as a whole: names of fields, and values such as "object".
        variables: The names of the variables that the template reads and does not set everywhere.
        writes_all: Whether the template may write fields of messages that it does not name.
        marks_answers: Whether the template marks the assistant's text by ``{% generation %}``.

    Raises:
        InputError: When the template cannot be compiled.
    """

    def __init__(self, source: str) -> None:
        from jinja2 import meta, nodes

        environment = _environment()
        try:
            tree = environment.parse(source)
            self._template = environment.from_string(source)
            self.variables: AbstractSet[str] = meta.find_undeclared_variables(tree)
        except Exception as error:  # on deep nesting, the compiler raises errors of many kinds
            line = f"line {error.lineno}: " if hasattr(error, "lineno") else ""
            raise InputError(f"the chat template cannot be compiled: {line}{_one_line(error)}") from error
        self.source = source
        constants = {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
        attributes = {node.attr for node in tree.find_all(nodes.Getattr)}
        self.words: set[str] = {*filter(str.isidentifier, constants), *attributes}
        iterated = attributes & {"items", "values"}
        dumped = any(
            isinstance(node.node, nodes.Name) and node.name == "tojson" and node.node.name != "tools"
            for node in tree.find_all(nodes.Filter)
        )
        self.writes_all: bool = bool(iterated) or dumped
        self.marks_answers: bool = re.search(r"\{%[-+]?\s*generation\s*[-+]?%\}", source) is not None

    def render(self, variables: Mapping[str, Any]) -> str:
        """Return the text that the template writes, without surrogates.

        Raises:
            InputError: When the template raises an error, or writes too much.
        """
        return without_surrogates("".join(self._pieces(self._template, variables)))

    def render_traced(self, variables: Mapping[str, Any]) -> Traced:
        """Return the text that the template writes, with its origin. Surrogates are kept.

        Args:
            variables: The variables, whose strings have their origin.

        Raises:
            InputError: As for `render`.
        """
        return joined(self._pieces(self._traced_template, variables))

    @cached_property
    def _traced_template(self) -> jinja2.Template:
        return _tracing_environment().from_string(self.source)

    def _pieces(self, template: jinja2.Template, variables: Mapping[str, Any]) -> list[str]:
        pieces, size = [], 0
        try:
            for piece in template.generate(variables):
                size += len(piece)
                if size > _MOST_CHARACTERS:
                    raise InputError(f"it writes more than {_MOST_CHARACTERS:,} characters")
                pieces.append(piece)
        except Exception as error:  # a template can raise any error, and many raise one to reject a dialog
            raise TemplateFailure(f"the chat template rejects the dialog or fails: {_one_line(error)}") from error
        return pieces


@lru_cache(maxsize=64)
def compiled(source: str) -> JinjaTemplate:
    """Return the compiled template; see `JinjaTemplate`. Those used last are kept."""
    return JinjaTemplate(source)


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return _set_up(ImmutableSandboxedEnvironment)


def _set_up(kind: type[jinja2.Environment]) -> jinja2.Environment:
    """Return Jinja set up as transformers does for chat templates."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser

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

    environment = kind(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = _tojson  # Jinja's own filter escapes the characters that are special in HTML
    environment.globals["raise_exception"] = raise_exception
    return environment


@lru_cache(maxsize=1)
def _tracing_environment() -> jinja2.Environment:
    """Return Jinja set up in the same way, but so that strings carry their origin."""
    from jinja2 import nodes, pass_environment
    from jinja2.compiler import CodeGenerator, Frame
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class TracingGenerator(CodeGenerator):
        """Writes each constant of the template as a call that returns it with its origin."""

        def _output_const_repr(self, group: Iterable[Any]) -> str:
            return f"environment.own({''.join(map(str, group))!r})"

        def visit_Const(self, node: nodes.Const, frame: Frame) -> None:
            if isinstance(node.value, str):
                self.write(f"environment.own({str(node.value)!r})")
            else:
                super().visit_Const(node, frame)

        def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
            self.write("environment.concat(map(environment.text_of, (")
            for part in node.nodes:
                self.visit(part, frame)
                self.write(", ")
            self.write(")))")

    class TracingEnvironment(ImmutableSandboxedEnvironment):
        code_generator_class = TracingGenerator
        concat = staticmethod(joined)
        own = staticmethod(lru_cache(maxsize=1 << 12)(lambda text: Traced(text, TEMPLATE)))
        text_of = staticmethod(text_of)

        def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
            wrapper = super().wrap_str_format(value)
            text = getattr(value, "__self__", None)
            if wrapper is None or not isinstance(text, Traced) or getattr(value, "__name__", "") != "format":
                return wrapper

            def formatted(*args: Any, **kwargs: Any) -> str:
                return text.filled(str(wrapper(*args, **kwargs)), args, kwargs)

            return formatted

    environment = _set_up(TracingEnvironment)
    environment.finalize = lambda value: value if isinstance(value, str) else _finalized(value)
    environment.filters |= {
        "tojson": lambda value, *args, **kwargs: written(_tojson(value, *args, **kwargs), value),
        "string": text_of,
        "indent": _indent,
        "join": pass_environment(_join),
        "title": lambda text: _title(environment.filters["string"](text)),
    }
    return environment


def _finalized(value: Any) -> Any:
    """Return the text of a container, which `str` would return without its origin; anything else as it is."""
    return text_of(value) if isinstance(value, (Mapping, list, tuple)) else value


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    from jinja2.filters import do_indent

    margin = Traced(width if isinstance(width, str) else " " * width)
    lines = (text + "\n").splitlines()
    indented = [
        margin + line if (first if number == 0 else line or blank) else line for number, line in enumerate(lines)
    ]
    result, expected = joined(Traced("\n").join(indented)), do_indent(text, width, first, blank)
    return result if result == expected else expected


def _join(environment: jinja2.Environment, items: Iterable[Any], d: str = "", attribute: Any = None) -> str:
    from jinja2.filters import make_attrgetter

    values = items if attribute is None else map(make_attrgetter(environment, attribute), items)
    between = d if isinstance(d, Traced) else Traced(d)
    return between.join(map(text_of, values))


def _title(text: str) -> str:
    from jinja2.filters import do_title

    title = do_title(text)
    return Traced(title, origin_of(text)) if len(title) == len(text) else title


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
