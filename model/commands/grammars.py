"""The options of structured output, which `bpe generate` and `bpe chat` share."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from bpe.commands.options import group

if TYPE_CHECKING:
    from model.generation.grammar import Grammar

grammar_options = group(
    "Structured output",
    click.option(
        "--json-schema", metavar="FILE", help="File with a JSON schema; each text is a JSON value that it allows."
    ),
    click.option("--regex", metavar="R", help="Regular expression (Rust's syntax) that each text as a whole matches."),
    click.option(
        "--grammar", metavar="FILE", help="File with a context-free grammar that each text follows: Lark or GBNF."
    ),
)


class GrammarSource(NamedTuple):
    """A grammar that an option gives, read but not compiled."""

    kind: Literal["json-schema", "regex", "grammar"]
    """The name of the option."""
    text: str
    name: str
    """What messages call it."""


def read_grammar(settings: dict[str, Any]) -> GrammarSource | None:
    """Take the options of structured output out of the settings of a command, and read what they name.

    Raises:
        click.UsageError: When several are given.
        InputError: When a file cannot be read, or is wrong in a way that shows without a vocabulary; the message names
            the file.
    """
    from bpe import InputError

    given = {name: settings.pop(name) for name in ("json_schema", "regex", "grammar")}
    chosen = [name for name, value in given.items() if value is not None]
    if not chosen:
        return None
    if len(chosen) > 1:
        first, second = (f"--{name.replace('_', '-')}" for name in chosen[:2])
        raise click.UsageError(f"{first} and {second} exclude each other; give only one of them")
    from model.generation.grammar import check_text, require_llguidance

    require_llguidance()
    if given["regex"] is not None:
        return GrammarSource("regex", given["regex"], "--regex")
    kind: Literal["json-schema", "grammar"] = "grammar" if given["json_schema"] is None else "json-schema"
    file = given[chosen[0]]
    try:
        text = Path(file).read_text("utf-8-sig")
        check_text(kind, text)
    except UnicodeDecodeError:
        raise InputError(f"{file}: it is not UTF-8 text; --{kind} needs a text file") from None
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    return GrammarSource(kind, text, file)


def compiled(
    source: GrammarSource | None, model: Any, tokenizer: Any, end_ids: Collection[int] | None = None
) -> Grammar | None:
    """Return the grammar of an option for a model; None without one.

    Raises:
        InputError: When the grammar is wrong; the message names the file or the option, and the place.
    """
    if source is None:
        return None
    from bpe import InputError
    from model import grammar_compiler

    compiler = grammar_compiler(model, tokenizer, end_ids)
    compile = {"json-schema": compiler.json_schema, "regex": compiler.regex, "grammar": compiler.grammar}[source.kind]
    try:
        return compile(source.text)
    except InputError as error:
        raise InputError(f"{source.name}: {error}") from None
