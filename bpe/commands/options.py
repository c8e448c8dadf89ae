"""Options that several commands share, options in named groups, and examples in the help."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any

import click

from bpe.commands.completers import completed_type
from bpe.commands.failures import in_one_line
from bpe.commands.names import unknown_option, with_other_names
from bpe.commands.types import lenient
from bpe.progress import Reporter, events, reporter_on, reporting, say, warnings_as_events


class Command(click.Command):
    """A command that lists its options in the groups that `group` assigns, and names all that is missing at once.

    Numbers and names are taken in all spellings of `bpe.commands.types`.

    Args:
        arguments: As for `click.Command`.
        needed: What an error calls an input that is missing -> the parameters of which the command line must have one.
        settings: As for `click.Command`.
    """

    def __init__(
        self, *arguments: Any, needed: Mapping[str, Sequence[str]] = MappingProxyType({}), **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self._needed = needed
        for parameter in self.params:
            parameter.type = completed_type(parameter, lenient(parameter.type))

    def make_parser(self, ctx: click.Context) -> Any:
        """Return click's parser, which also knows the other names of the options."""
        parser = super().make_parser(ctx)
        options = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        own = {name for option in options for name in (*option.opts, *option.secondary_opts)}
        for option in options:
            with_other_names(option, own).add_to_parser(parser, ctx)
        return parser

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing and args and args[-1].startswith("-"):
            args = args[:-1]  # an option whose value is being completed; click would give up on the other arguments
        given = [*args]
        try:
            rest = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise click.UsageError(unknown_option(error.option_name, self, ctx), ctx) from error
        except click.MissingParameter as error:
            raise click.UsageError(self._missing(ctx, given), ctx) from error
        if missing := self._missing(ctx, given):
            raise click.UsageError(missing, ctx)
        return rest

    def _missing(self, ctx: click.Context, args: list[str]) -> str:
        """Return a message that names all arguments and options that are missing, or nothing."""
        if ctx.resilient_parsing:
            return ""
        values, _, _ = self.make_parser(ctx).parse_args(args)
        given = {name for name, value in values.items() if _is_given(value)}
        given |= {each.name for each in self.get_params(ctx) if each.value_from_envvar(ctx) is not None}
        required = [parameter for parameter in self.get_params(ctx) if parameter.required]
        missing = [_label(parameter, ctx) for parameter in required if parameter.name not in given]
        missing += [label for label, names in self._needed.items() if given.isdisjoint(names)]
        return f"missing {', '.join(missing)}" if missing else ""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(parameter, "group", "Options"), []).append(record)
        sections["Options"] = sections.pop("Options", [])  # at the end
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def _name(parameter: click.Parameter, context: click.Context) -> str:
    """Return the first name of an option, or the metavar of an argument."""
    return parameter.opts[0] if isinstance(parameter, click.Option) else _label(parameter, context)


def _is_given(value: object) -> bool:
    """Return whether a value of click's parser is from the command line; what stands for no value depends on click."""
    return bool(value) if isinstance(value, (list, tuple)) else isinstance(value, (str, int))


def _label(parameter: click.Parameter, context: click.Context) -> str:
    """Return a parameter as an error names it: `MODEL`, `-o / --output DIR`."""
    if isinstance(parameter, click.Option):
        return f"{' / '.join(parameter.opts)} {parameter.make_metavar(context)}"
    return parameter.make_metavar(context).strip("[]")


def group(heading: str, *options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Add options to a command and list them under a heading of their own in its help.

    Args:
        heading: The heading, without a colon.
        options: What `click.option` returns, in the order of the help.
    """

    def add(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
            function.__click_params__[-1].group = heading
        return function

    return add


def examples(*lines: str) -> Callable[[Any], Any]:
    """Add a block of examples to the help of a command. Lines that are too long continue on the next one."""

    def add(function: Any) -> Any:
        block = "\n".join(f"  {part}" for line in lines for part in _continued(line))
        function.__doc__ = f"{function.__doc__.rstrip()}\n\n    \b\n    Examples:\n    " + block.replace("\n", "\n    ")
        return function

    return add


def _continued(line: str, width: int = 74) -> Iterator[str]:
    """Yield a command line in pieces that fit into the help, with a backslash at the ends; broken before options."""
    while len(line) > width:
        place = line.rfind(" -", 0, width - 1)
        if place <= 0 or not line[:place].strip():
            break
        yield f"{line[:place]} \\"
        line = f"   {line[place:]}"
    yield line


def given(*names: str) -> list[str]:
    """Return those of these parameters that are on the command line of the current command, as they are written there.

    Args:
        names: The names of parameters; those of an option are without dashes, such as "vocab_size".
    """
    context = click.get_current_context()
    return [
        parameter.opts[-1] if isinstance(parameter, click.Option) else parameter.make_metavar(context)
        for parameter in context.command.params
        if parameter.name in names
        and context.get_parameter_source(parameter.name) is click.core.ParameterSource.COMMANDLINE
    ]


def refuse_given(why: str, *names: str) -> None:
    """Refuse options that would have no effect.

    Args:
        why: What takes their effect away, such as "without --report".
        names: The names of the parameters, without dashes.

    Raises:
        click.UsageError: When one of them is on the command line.
    """
    for option in given(*names):
        raise click.UsageError(f"{option} has no effect {why}")


def tell_defaults(**values: object) -> None:
    """Print the values that the command has chosen for options or arguments that are not on its command line.

    Args:
        values: The name of the parameter, without dashes -> the value.
    """
    context = click.get_current_context()
    parameters = {parameter.name: parameter for parameter in context.command.params}
    names = {name: _name(parameters[name], context) for name in values}
    chosen = ", ".join(f"{names[name]} {value}" for name, value in values.items())
    say(f"bpe: by default: {chosen}")


def texts_option(help: str) -> Callable[[Any], Any]:
    """Return the option that gives text on the command line, which has the same names in every command.

    Args:
        help: The description of the option in the help of the command.
    """
    return click.option("-c", "-p", "--text", "--prompt", "texts", multiple=True, metavar="TEXT", help=help)


def progress_options(*, with_events: bool = True) -> Callable[[Any], Any]:
    """Add --quiet, and --json for events, to a command, and report its work as they say.

    Args:
        with_events: Whether the command has events. A command that prints its result as JSON has a --json of its own.
    """
    options = [
        click.option(
            "-q", "--quiet", is_flag=True, help="Print no progress and no messages, only warnings, errors and results."
        ),
        click.option(
            "--json", "as_events", is_flag=True, help="Print progress and the result to stdout as JSON lines."
        ),
    ]

    def add(function: Any) -> Any:
        @functools.wraps(function)
        def reported(*args: Any, quiet: bool, as_events: bool = False, **kwargs: Any) -> Any:
            if quiet and as_events:
                raise click.UsageError("--quiet and --json exclude each other: --json prints nothing but events")
            with _reported(quiet, as_events):
                return function(*args, **kwargs)

        return group("Messages", *options[: 1 + with_events])(reported)

    return add


@contextmanager
def _reported(quiet: bool, as_events: bool) -> Iterator[None]:
    if os.environ.get("RANK", "0") != "0":  # one of torchrun's processes; the first reports for all
        quiet, as_events = True, False
    reporter = Reporter() if quiet else events() if as_events else reporter_on(sys.stderr)
    with ExitStack() as stack:
        stack.enter_context(reporting(reporter))
        if as_events:
            stack.enter_context(warnings_as_events(reporter))
        try:
            yield
        except (KeyboardInterrupt, click.Abort):
            reporter.event("error", message="interrupted")
            raise
        except click.ClickException as error:
            reporter.event("error", message=error.format_message())
            raise
        except BrokenPipeError:  # the reader of the events has exited
            raise
        except Exception as error:
            reporter.event("error", message=in_one_line(error))
            raise


tokenizer_option = click.option(
    "-t",
    "--tokenizer",
    "name",
    metavar="NAME|FILE",
    envvar="BPE_TOKENIZER",
    show_envvar=True,
    default="llama3",
    help="Tokenizer: a tokenizer file, a model directory, a known name, or ORG/NAME on the hub.",
)
pattern_option = click.option(
    "--pattern",
    metavar="NAME|REGEX",
    help="Split pattern, for a file of ranks that stores none.  [default: the file's own]",
)
exclude_option = click.option(
    "--exclude", multiple=True, metavar="GLOB", help="Skip files and directories whose name matches; repeatable."
)
separator_option = click.option(
    "--separator", metavar="STRING", help="String that separates documents within a file.  [default: none]"
)
field_option = click.option(
    "--field", default="text", metavar="NAME", help="Key of the text in .jsonl files, or its column in .parquet files."
)
text_option = texts_option("Text to read instead of files; repeatable.")
corpus_text_option = texts_option("Text to read as one document, besides files; repeatable.")
files_argument = click.argument("files", nargs=-1, metavar="[FILE]...")
special_option = click.option(
    "--allow-special",
    is_flag=True,
    help="Encode special tokens in the text as their ids.  [default: as ordinary text]",
)
color_option = click.option(
    "--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="When to print colors."
)
bootstrap_options = group(
    "Confidence intervals",
    click.option(
        "--samples", type=click.IntRange(min=100), default=1000, metavar="N", help="Number of bootstrap samples."
    ),
    click.option(
        "--seed", type=click.IntRange(min=0), default=0, metavar="N", help="Random seed of the bootstrap samples."
    ),
)
