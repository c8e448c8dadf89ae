"""`bpe generate`: continue texts with a model."""

from __future__ import annotations

import codecs
import json
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from bpe.commands.inputs import read_inputs
from bpe.commands.options import Command, examples, group, special_option
from bpe.commands.terminal import print_pieces
from model.commands.options import (
    backend_option,
    bos_option,
    device_option,
    dtype_option,
    eos_token_option,
    load_model,
    sampling_options,
    sampling_settings,
    threads_option,
)

if TYPE_CHECKING:
    from model import Completions


TEMPERATURE, TOP_P = 0.8, 0.95


@click.command(cls=Command)
@click.argument("model", metavar="MODEL")
@group(
    "Prompts",
    click.option("-p", "--prompt", "prompts", multiple=True, metavar="TEXT", help="Text to continue; repeatable."),
    click.option("--file", metavar="FILE", help="File whose content is the prompt.  [default: stdin]"),
    click.option("--batch", metavar="FILE", help="File with one prompt per line; all are continued at once."),
    bos_option,
    click.option(
        "--samples", type=click.IntRange(min=1), default=1, metavar="N", help="Number of texts for each prompt."
    ),
    special_option,
)
@group(
    "Length",
    click.option("--max-tokens", type=int, default=256, metavar="N", help="Largest number of tokens to generate."),
    click.option("--stop", multiple=True, metavar="TEXT", help="Text to stop before; repeatable."),
    eos_token_option,
)
@sampling_options(
    TEMPERATURE,
    TOP_P,
    click.option(
        "--min-p",
        type=float,
        metavar="X",
        help="Drop tokens less likely than X times the most likely one.  [default: the model's, or no limit]",
    ),
    click.option(
        "--repetition-penalty",
        type=float,
        metavar="X",
        help="Penalty on tokens that have occurred; above 1 makes them less likely.  [default: the model's, or 1]",
    ),
    click.option(
        "--frequency-penalty",
        type=float,
        default=0.0,
        metavar="X",
        help="Amount to subtract from a token's logit for each time it was generated.",
    ),
    click.option(
        "--logit-bias",
        multiple=True,
        metavar="ID=X",
        help="Amount to add to the logit of a token; -inf bans it; repeatable.",
    ),
)
@group(
    "Output",
    click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each text: ids, finish, times, ..."),
    click.option(
        "--logprobs",
        type=int,
        metavar="N",
        help="With --json: log-probabilities of the tokens, and of the N most likely ones at each place.",
    ),
)
@group("Computation", dtype_option, device_option, backend_option, threads_option)
@examples(
    "bpe generate runs/tales -p 'Once upon a time'",
    "echo 'One day, a fox' | bpe generate runs/tales --temperature 0 --max-tokens 100",
    "bpe generate smollm2 -p 'The sea is' --samples 4 --stop . --json --logprobs 5",
    "bpe generate smollm2 --batch prompts.txt --dtype bfloat16 --threads 2",
)
def generate(
    model: str,
    prompts: Sequence[str],
    file: str | None,
    batch: str | None,
    allow_special: bool,
    logit_bias: Sequence[str],
    as_json: bool,
    logprobs: int | None,
    bos: bool | None,
    eos_tokens: Sequence[str],
    dtype: str | None,
    device: str,
    backend: str,
    threads: int | None,
    **settings: Any,
) -> None:
    """Continue a text with a model.

    A single text is printed while it is generated. Several texts, from several prompts or --samples, are generated
    together and printed at the end, separated by empty lines.
    """
    if logprobs is not None and not as_json:
        raise click.UsageError("--logprobs needs --json")
    from bpe.locate import locate

    settings |= {"logit_bias": dict(map(_bias, logit_bias)), "logprobs": logprobs}
    settings["allowed_special"] = "all" if allow_special else frozenset()
    texts = _prompts(prompts, file, batch)
    path = locate(model, "model")  # before torch is imported, so that a wrong name fails at once
    from model.checkpoint import open_checkpoint

    settings = sampling_settings(open_checkpoint(path), settings, TEMPERATURE, TOP_P)
    start = time.perf_counter()
    transformer, tokenizer = load_model(path, dtype, device, backend, threads, bos, eos_tokens)
    load_seconds = time.perf_counter() - start

    from model import Completions

    completions = Completions(transformer, tokenizer, texts, **settings)
    if len(texts) * settings["samples"] == 1 and not as_json:
        print_pieces(piece for pieces in (texts, (piece for _, piece in completions)) for piece in pieces)
    else:
        for _ in completions:
            pass
        if as_json:
            _print_json(completions, texts, load_seconds, with_logprobs=logprobs is not None)
        else:
            click.echo("\n\n".join(texts[text.prompt] + text.text for text in completions.texts))
    times, rates = completions.generation.times, _rates(completions)
    click.echo(
        f"prefill {times.prefill_tokens:,} tokens, {rates['prefill']:,.0f} tokens per second;"
        f" decode {times.decode_tokens:,} tokens, {rates['decode']:,.1f} tokens per second",
        err=True,
    )


def _rates(completions: Completions) -> dict[str, float]:
    """Return tokens per second of prefill and decode."""
    times = completions.generation.times
    return {
        "prefill": times.prefill_tokens / max(times.prefill_seconds, 1e-9),
        "decode": times.decode_tokens / max(times.decode_seconds, 1e-9),
    }


def _print_json(completions: Completions, prompts: Sequence[str], load_seconds: float, with_logprobs: bool) -> None:
    times = completions.generation.times
    seconds = {"load": load_seconds, "prefill": times.prefill_seconds, "decode": times.decode_seconds}
    for text in completions.texts:
        record: dict[str, Any] = {
            "prompt": prompts[text.prompt],
            "text": text.text,
            "ids": text.ids,
            "finish": text.finish,
        }
        if text.finish == "end":
            record["end"] = {"id": text.ids[-1], "text": completions.text_of(text.ids[-1])}
        if with_logprobs:
            record |= {"logprobs": text.logprobs, "top_logprobs": text.top_logprobs}
        click.echo(json.dumps({**record, "seconds": seconds, "tokens_per_second": _rates(completions)}))


def _prompts(prompts: Sequence[str], file: str | None, batch: str | None) -> list[str]:
    """Return the texts to continue: the arguments, a file's content, a file's lines, or stdin."""
    if sum(map(bool, (prompts, file, batch))) > 1:
        raise click.UsageError("give only one of -p / --prompt, --file and --batch")
    if prompts:
        return [os.fsencode(prompt).decode(errors="replace") for prompt in prompts]
    ((_, content),) = read_inputs([file or batch or "-"])
    text = content.removeprefix(codecs.BOM_UTF8).decode(errors="replace").replace("\r\n", "\n")
    if batch is None:
        return [text.rstrip("\n")]
    lines = [line for line in text.split("\n") if line]
    if not lines:
        from bpe import InputError

        raise InputError(f"{batch}: no prompts; write one prompt per line")
    return lines


def _bias(text: str) -> tuple[int, float]:
    id, _, bias = text.partition("=")
    try:
        return int(id), float(bias)
    except ValueError:
        raise click.UsageError(f"--logit-bias {text}: write ID=NUMBER, such as 13=-5 or 13=-inf") from None
