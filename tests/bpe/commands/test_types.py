"""Values on the command line, as people write them."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from bpe.cli import COMMANDS, cli
from bpe.commands.options import Command
from bpe.commands.types import OTHER_VALUES, Duration, Number, OneOf, Share, WholeNumber, lenient, parse_size


def converted(kind: click.ParamType, text: str) -> Any:
    return kind.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "size"),
    [("2G", 2_000_000_000), ("500MB", 500_000_000), ("64m", 64_000_000), ("1.5k", 1500), ("7", 7),
     ("64 MB", 64_000_000), ("1,500", 1500), ("1_500", 1500), ("2GiB", 2 << 30), ("4Ki", 4096)],
)  # fmt: skip
def test_sizes_have_decimal_prefixes_except_with_an_i(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "2X", "many", "1e999", "-1", "1,5G", "Ki"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a size; write 2G"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [("4096", 4096), ("32k", 32000), ("32K", 32000), ("32_000", 32000), ("32,000", 32000), ("1,234,567", 1234567),
     ("1.5M", 1500000), ("4Ki", 4096), (" 7 ", 7), ("-1", -1), ("+3", 3), ("2.0", 2)],
)  # fmt: skip
def test_whole_numbers_may_have_groups_and_prefixes(text: str, number: int) -> None:
    found = converted(WholeNumber(), text)
    assert found == number
    assert isinstance(found, int)


@pytest.mark.parametrize(
    "text", ["", "k", "1.5", "3.2", "32,00", "1,5k", "4 0", "4__0", "0x10", "ten", "5m5", "1e3x", "5b"]
)
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a whole number; write 4096, 4_096, 4,096 or 4k"):
        converted(WholeNumber(), text)


@pytest.mark.parametrize(
    ("text", "number"),
    [("0.5", 0.5), ("2e-3", 2e-3), ("1_000", 1000.0), ("1,000", 1000.0), ("1T", 1e12), ("inf", float("inf"))],
)
def test_numbers_may_have_exponents_groups_and_prefixes(text: str, number: float) -> None:
    assert converted(Number(), text) == number


@pytest.mark.parametrize("text", ["", "0,5", "half", "5%"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a number; write 0.5"):
        converted(Number(), text)


def test_shares_may_be_percentages() -> None:
    assert [converted(Share(), text) for text in ("0.05", "5%", "5 %", "0.5%")] == [0.05, 0.05, 0.05, 0.005]
    with pytest.raises(click.BadParameter, match="is not a number"):
        converted(Share(), "%")


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("5", 5), ("0.5", 0.5), ("5m", 5), ("5 min", 5), ("90s", 1.5), ("1h30m", 90), ("1.5h", 90),
     ("2 hours 3 minutes", 123), ("1d", 1440), ("5 MINUTES", 5)],
)  # fmt: skip
def test_times_may_have_units(text: str, minutes: float) -> None:
    assert converted(Duration("m"), text) == minutes
    assert converted(Duration("s"), text) == (minutes if text in ("5", "0.5") else minutes * 60)


@pytest.mark.parametrize("text", ["", "m", "5x", "5m7", "1:30", "five", "5m!", "0,5h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a time; write 5m, 90s, 1h30m"):
        converted(Duration("m"), text)


@pytest.mark.parametrize(
    ("text", "name"),
    [("float16", "float16"), ("FP16", "float16"), ("half", "float16"), ("bf16", "bfloat16"), ("f32", "float32"),
     ("torch.bfloat16", "bfloat16")],
)  # fmt: skip
def test_data_types_are_taken_by_their_usual_names(text: str, name: str) -> None:
    assert converted(OneOf(["float32", "bfloat16", "float16"]), text) == name


def test_other_names_are_refused_with_the_likeliest() -> None:
    kind = OneOf(["q8_0", "q6_k", "q4_k"])
    assert converted(kind, "Q8_0") == "q8_0"
    with pytest.raises(click.BadParameter, match="'q4_k_m' is not one of q8_0, q6_k, q4_k; did you mean q4_k\\?"):
        converted(kind, "q4_k_m")
    with pytest.raises(click.BadParameter, match="'onnx' is not one of q8_0, q6_k, q4_k$"):
        converted(kind, "onnx")


def test_an_other_spelling_never_hides_a_choice() -> None:
    assert converted(OneOf(["float", "float32"]), "float") == "float"


def test_every_other_spelling_is_of_a_value_of_some_option() -> None:
    commands = [cli.get_command(click.Context(cli), name) for names in COMMANDS.values() for name in names]
    options = [parameter for command in commands if command is not None for parameter in command.params]
    values = {value for option in options if isinstance(option.type, click.Choice) for value in option.type.choices}
    assert {*OTHER_VALUES} <= values


def test_every_command_takes_numbers_and_names_in_these_spellings() -> None:
    for name in (name for names in COMMANDS.values() for name in names):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        for parameter in command.params:
            assert lenient(parameter.type) is parameter.type, f"{name} {parameter.name}"


def test_limits_hold_for_every_spelling_and_errors_name_the_option() -> None:
    @click.command(cls=Command)
    @click.option("--size", type=click.IntRange(min=100), default=1000, show_default=True)
    @click.option("--dtype", type=click.Choice(["float32", "float16"]))
    @click.option("--rate", type=float)
    def command(**values: object) -> None:
        click.echo(values)

    def said(*arguments: str) -> str:
        return CliRunner().invoke(command, arguments).output

    values = said("--size", "32k", "--dtype", "fp16", "--rate", "1e-3")
    assert "'size': 32000" in values
    assert "'dtype': 'float16'" in values
    assert "'rate': 0.001" in values
    assert "x>=100" in said("--help")
    assert "[float32|float16]" in said("--help")
    assert "Invalid value for '--size': 1 is not in the range x>=100" in said("--size", "1")
    assert "Invalid value for '--size': '1k5' is not a whole number" in said("--size", "1k5")
    assert "Invalid value for '--dtype': 'fp8' is not one of float32, float16" in said("--dtype", "fp8")
