"""Options of commands that draw pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from bpe.commands.options import given

if TYPE_CHECKING:
    from bpe.drawing import PictureSettings


def parse_formats(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """Return the formats that the values name, each a format or several separated by commas."""
    from bpe.drawing import FORMATS

    names = [name.strip().lower().removeprefix(".") for value in values for name in value.split(",")]
    for name in names:
        if name not in FORMATS:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(FORMATS)}", context, parameter)
    return tuple(dict.fromkeys(names))


format_option = click.option(
    "--format",
    "formats",
    multiple=True,
    metavar="png|svg|pdf",
    callback=parse_formats,
    help="Format of the plots; repeatable, or separated by commas.  [default: png]",
)
dark_option = click.option("--dark", is_flag=True, help="Draw the plots on a dark background.")


def picture_settings(place: str, formats: Sequence[str], dark: bool) -> PictureSettings | None:
    """Return the settings of the plots that a command writes beside other files, and check that they can be drawn.

    Args:
        place: The directory of the plots, which messages begin with.
        formats: The value of --format.
        dark: The value of --dark.

    Returns:
        The settings. None if matplotlib is not installed, after a line that says so.

    Raises:
        InputError: When matplotlib is not installed, but --format or --dark is given.
    """
    from bpe.drawing import INSTALL, PictureSettings, is_available, require

    if given("formats", "dark"):
        require(place)
    if not is_available():
        click.echo(
            f"bpe: {place}: the plots are left out; they need matplotlib, which is not installed: {INSTALL}", err=True
        )
        return None
    return PictureSettings(tuple(formats) or ("png",), dark)


def loss_settings(run: str, formats: Sequence[str], dark: bool) -> PictureSettings:
    """Return the settings of the plot of a run's loss.

    The run itself says where matplotlib is not installed.

    Args:
        run: The run directory, which messages begin with.
        formats: The value of --format.
        dark: The value of --dark.

    Raises:
        InputError: When matplotlib is not installed, but --format or --dark is given.
    """
    from bpe.drawing import PictureSettings, require

    if given("formats", "dark"):
        require(run)
    return PictureSettings(tuple(formats) or ("png",), dark)
