"""Options in groups, options without effect, and what is missing."""

from __future__ import annotations

import click
from click.testing import CliRunner

from bpe.commands.options import Command, group, refuse_given


def test_options_are_listed_in_the_groups_of_the_command() -> None:
    @click.command(cls=Command)
    @click.argument("file")
    @group("First", click.option("--one", help="The first."), click.option("--two", help="The second."))
    @click.option("--alone", help="Ungrouped.")
    @group("Last", click.option("--three", help="The third."))
    def command(file: str, one: str, two: str, alone: str, three: str) -> None:
        """Do something."""

    lines = CliRunner().invoke(command, ["--help"]).stdout.split("\n\n", 2)[2].splitlines()
    assert [line.split()[0] for line in lines if line] == [
        "First:", "--one", "--two", "Last:", "--three", "Options:", "--alone", "--help"
    ]  # fmt: skip


def test_options_without_effect_are_refused_only_on_the_command_line() -> None:
    @click.command(cls=Command)
    @click.argument("texts", nargs=-1)
    @click.option("-s", "--seed", default=1)
    @click.option("--color/--no-color", default=True)
    @click.option("--quiet", is_flag=True)
    def command(quiet: bool, **options: object) -> None:
        if quiet:
            refuse_given("with --quiet", "texts", "seed", "color")

    def said(*arguments: str) -> str:
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == (2 if result.stderr else 0)
        return result.stderr

    assert said("text", "-s", "2", "--no-color") == said("--quiet") == ""
    assert "--seed has no effect with --quiet\n" in said("--quiet", "-s", "1")  # the default, but given
    assert "--color has no effect with --quiet\n" in said("--quiet", "--no-color")
    assert "[TEXTS]... has no effect with --quiet\n" in said("--quiet", "text")


def test_all_missing_arguments_and_options_are_named_at_once() -> None:
    @click.command(cls=Command, needed={"TEXT or --file FILE": ("texts", "file")})
    @click.argument("model", metavar="MODEL")
    @click.argument("texts", nargs=-1)
    @click.option("-o", "--output", required=True, metavar="DIR")
    @click.option("--file", metavar="FILE")
    @click.option("--key", required=True, metavar="KEY", envvar="TEST_KEY")
    @click.option("--quiet", is_flag=True)
    def command(**options: object) -> None:
        click.echo("done")

    def missing(*arguments: str, **environment: str) -> str:
        result = CliRunner(env=environment).invoke(command, arguments)
        return result.stderr.partition("Error: ")[2] or result.stdout

    assert missing() == "missing MODEL, -o / --output DIR, --key KEY, TEXT or --file FILE\n"
    assert missing("m", "--quiet", TEST_KEY="k") == "missing -o / --output DIR, TEXT or --file FILE\n"
    assert missing("m", "--key", "k", "-o", "d") == "missing TEXT or --file FILE\n"
    assert (
        missing("m", "--key", "k", "-o", "d", "text") == missing("m", "--key", "", "-o", "d", "--file", "f") == "done\n"
    )
    assert missing("--help").startswith("Usage")
