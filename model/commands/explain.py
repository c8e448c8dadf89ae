"""`bpe explain`: show each step from a prompt to the next token."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from bpe.commands.inputs import exists, read_prompts, refuse_text
from bpe.commands.options import Command, color_option, examples, group, progress_options, refuse_given, texts_option
from bpe.commands.pictures import dark_option, parse_formats
from bpe.commands.terminal import use_color
from bpe.display import visible
from bpe.progress import phase, say
from model.commands.options import (
    bos_option,
    chosen_device,
    device_option,
    dtype_option,
    ignore_unknown_option,
    overruled,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from bpe import Tokenizer
    from bpe.drawing import PictureSettings
    from model.explain.steps import ForwardStep


class _NumberOrAll(click.ParamType):  # type: ignore[type-arg]
    """A number, or None for "all"."""

    name = "number"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int | None:
        """Return the number."""
        if value == "all":
            return None
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor all", parameter, context)


@click.command(cls=Command, needed={"MODEL": ("arguments", "model")})
@click.argument("arguments", nargs=-1, metavar="MODEL [FILE]")
@group(
    "Steps",
    texts_option("Text to explain.  [default: the file, or stdin]"),
    click.option(
        "-m",
        "--model",
        metavar="MODEL",
        help="Model, instead of the first argument. An argument that is no file is then the text itself.",
    ),
    bos_option,
    click.option(
        "--layer",
        type=_NumberOrAll(),
        default=0,
        metavar="N|all",
        help="Layer to show in detail, counted from 0; all: the attention of each layer.",
    ),
    click.option(
        "--head",
        type=_NumberOrAll(),
        default=0,
        metavar="N|all",
        help="Attention head to show in detail, counted from 0; all: the attention of each head.",
    ),
    click.option("--top", type=click.IntRange(min=1), default=10, metavar="N", help="Number of next tokens to show."),
)
@group(
    "Output",
    click.option(
        "--picture",
        "--png",
        "picture",
        metavar="FILE",
        help="File to draw the attention to: .png, .svg or .pdf; needs the extra `report`.",
    ),
    click.option(
        "--format",
        "formats",
        multiple=True,
        metavar="png|svg|pdf",
        callback=parse_formats,
        help="Further format of the picture, beside that of FILE; repeatable, or separated by commas.",
    ),
    dark_option,
    click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON."),
    color_option,
)
@group("Computation", dtype_option, device_option, ignore_unknown_option)
@progress_options(with_events=False)
@examples(
    "bpe explain runs/tales -p 'the answer to the ultimate question of life'",
    "bpe explain runs/tales -p 'One day, a fox' --layer 2 --head 1 --picture attention.png",
    "bpe explain runs/tales -p 'One day, a fox' --layer 2 --head all --picture heads.svg --dark",
)
def explain(
    arguments: Sequence[str],
    texts: Sequence[str],
    model: str | None,
    bos: bool | None,
    layer: int | None,
    head: int | None,
    top: int,
    picture: str | None,
    formats: Sequence[str],
    dark: bool,
    as_json: bool,
    color: str,
    dtype: str | None,
    device: str,
    ignore_unknown: bool,
) -> None:
    """Explain step by step how a model predicts the next token.

    The text is -p TEXT, the content of FILE, or stdin. Each step shows its tensor's shape, and for the first two tokens
    and the last one a few numbers and a row of blocks. A block stands for a part of the row, and shows the number in it
    that is farthest from 0: low if negative, high if positive.
    """
    from bpe.drawing import require

    if as_json:
        refuse_given("with --json", "color")
    if picture is None:
        refuse_given("without --picture FILE", "formats", "dark")
        if not as_json and (layer is None or head is None):
            raise click.UsageError("--layer all and --head all need --picture FILE or --json")
    else:
        saved = _picture_files(picture, formats, dark)
        require(picture)
    model, prompts = _model_and_prompts(model, arguments, texts)

    from bpe.locate import locate

    refuse_text(model)
    path = locate(model, "model")  # before torch is imported, so that a wrong name fails at once
    (prompt,) = prompts
    from model import load
    from model.explain.pictures import record
    from model.explain.steps import attention_maps
    from model.explain.steps import explain as explain_steps
    from model.generation.completions import prompt_ids

    with phase(f"loading {model}"):
        transformer, tokenizer = load(path, dtype, chosen_device(device), ignore_unknown=ignore_unknown)
    tokenizer = overruled(tokenizer, model, bos)
    ids = prompt_ids(tokenizer, prompt)
    label = _labels(tokenizer)
    # The steps are those of the first layer and head where all are asked for.
    steps = list(explain_steps(transformer, ids, layer=layer or 0, head=head or 0, n_vocab=tokenizer.n_vocab))
    maps = None
    if picture is not None or layer is None or head is None:
        image_layers = transformer.config.cross_attention_layers
        numbers = [number for number in range(transformer.config.n_layers) if number not in image_layers]
        layers = numbers if layer is None else [layer]
        heads = range(transformer.config.n_heads) if head is None else [head]
        maps = _Maps(attention_maps(transformer, ids, layers=layers, heads=heads), layers, heads)
    if picture is not None and maps is not None:
        _draw(maps, [label(id) for id in ids], model, prompt, *saved)
    if as_json:
        found = {"prompt": prompt, "layer": layer or 0, "head": head or 0}
        found["steps"] = [record(step, label, top=top) for step in steps]
        if maps is not None and (layer is None or head is None):
            found["attention"] = maps.records()
        click.echo(json.dumps(found, indent=2))
    else:
        _print_steps(steps, ids, label, top, use_color(color))


def _model_and_prompts(model: str | None, arguments: Sequence[str], texts: Sequence[str]) -> tuple[str, Iterator[str]]:
    """Return the name of the model, and an iterator over the prompt.

    Args:
        model: The value of --model.
        arguments: The model if --model is not given, and a file. With --model, a text that names no file is the prompt.
        texts: The values of --text.
    """
    if model is None:
        model, *files = arguments
    else:
        files = [argument for argument in arguments if argument == "-" or exists(argument)]
        texts = [*texts, *(argument for argument in arguments if argument not in files)]
    prompts = read_prompts(files, texts)
    if len(files) + len(texts) > 1:
        raise click.UsageError("only one text can be explained; give one file, or -p / --prompt once")
    return model, prompts


class _Maps(NamedTuple):
    """Attention maps."""

    shares: Tensor
    """[layers, heads, time, time]"""
    layers: Sequence[int]
    heads: Sequence[int]

    def records(self) -> list[dict[str, Any]]:
        """Return the maps for JSON."""
        return [
            {"layer": layer, "head": head, "shares": self.shares[row, column].tolist()}
            for row, layer in enumerate(self.layers)
            for column, head in enumerate(self.heads)
        ]


def _picture_files(file: str, formats: Sequence[str], dark: bool) -> tuple[Path, PictureSettings]:
    """Return the path of the pictures without a suffix, and their settings.

    Raises:
        InputError: When the suffix of the file is not a format, or its directory does not exist.
    """
    from bpe import InputError
    from bpe.drawing import FORMATS, PictureSettings

    path = Path(file)
    name = path.suffix[1:].lower()
    if name not in FORMATS:
        raise InputError(f"{file}: unknown suffix; use one of {', '.join(f'.{name}' for name in FORMATS)}")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{file}: the directory {path.parent} does not exist")
    return path.with_suffix(""), PictureSettings(tuple(dict.fromkeys([name, *formats])), dark)


def _draw(maps: _Maps, names: Sequence[str], model: str, prompt: str, path: Path, settings: PictureSettings) -> None:
    """Draw the attention of one head, or a grid, and say what was written."""
    from bpe.drawing import save
    from model.explain.attention import attention_grid, attention_map, attention_mosaic, in_rows

    layers, heads = maps.layers, maps.heads
    of_layer = f"layer {layers[0]}" if len(layers) == 1 else f"all {len(layers)} layers"
    of_head = f"head {heads[0]}" if len(heads) == 1 else f"all {len(heads)} heads"
    title, subtitle = f"Attention in {model}: {of_layer}, {of_head}", f"prompt: {visible(prompt.encode())}"
    if len(layers) == len(heads) == 1:
        figure = attention_map(settings.look, maps.shares[0, 0], names, title, subtitle)
    elif len(layers) > 1 and len(heads) > 1:
        figure = attention_mosaic(settings.look, maps.shares, layers, heads, title, subtitle)
    else:
        texts = [f"layer {layer}" for layer in layers] if len(layers) > 1 else [f"head {head}" for head in heads]
        shares = maps.shares.flatten(0, 1)
        figure = attention_grid(settings.look, shares, in_rows(texts), names, title, subtitle)
    files = save(figure, path, settings)
    say(f"{', '.join(map(str, files))}: {of_layer}, {of_head}")


def _labels(tokenizer: Tokenizer) -> Callable[[int], str]:
    """Return a function that names a token by its text; rows of the model without a token are named <ID>."""

    def label(id: int) -> str:
        try:
            token = tokenizer.decode_single_token_bytes(id)
        except KeyError:
            return f"<{id}>"
        return visible(token).replace(" ", "·")

    return label


def _print_steps(
    steps: Sequence[ForwardStep], ids: Sequence[int], label: Callable[[int], str], top: int, is_colored: bool
) -> None:
    from model.explain.pictures import picture

    for number, step in enumerate(steps, 1):
        title = f"{number}. {step.title}"
        shown = click.style(title, bold=True) if is_colored else title
        click.echo(f"{shown}  {step.shape} {step.axes}, {step.dtype}\n{textwrap.fill(step.text, 80)}", color=is_colored)
        for line in picture(step, ids, label, top=top, colour=is_colored):
            click.echo(f"  {line}", color=is_colored)
        click.echo()
