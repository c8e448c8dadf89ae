"""`bpe generate`: let a model continue texts."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import click

from bpe.commands.inputs import inputs
from bpe.commands.options import examples
from bpe.commands.terminal import print_answer
from model.commands.options import backend_option, device_option, dtype_option, load_model, threads_option


@click.command()
@click.argument("model", metavar="MODEL")
@click.option("-p", "--prompt", "prompts", multiple=True, metavar="TEXT", help="What the text begins with; repeat.")
@click.option("--file", metavar="FILE", help="The prompt is what this file holds.  [default: stdin]")
@click.option("--batch", metavar="FILE", help="Each line of this file is a prompt; all are gone on with at once.")
@click.option("--samples", type=click.IntRange(min=1), default=1, metavar="N", help="Texts for each prompt.")
@click.option("--max-tokens", type=int, default=256, metavar="N", help="Write at most so many tokens.")
@click.option("--temperature", type=float, default=0.8, metavar="X", help="0 always takes the likeliest token.")
@click.option("--top-k", type=int, metavar="N", help="Choose among the N likeliest only.  [default: no limit]")
@click.option("--top-p", type=float, default=0.95, metavar="X", help="Choose among the likeliest that sum to this.")
@click.option("--min-p", type=float, metavar="X", help="Leave out what is less likely than X times the likeliest.")
@click.option(
    "--repetition-penalty", type=float, default=1.0, metavar="X", help="Above 1: tokens that were there get rarer."
)
@click.option(
    "--frequency-penalty", type=float, default=0.0, metavar="X", help="Taken off a logit for each time it was written."
)
@click.option(
    "--logit-bias", multiple=True, metavar="ID=X", help="Added to the logit of a token; -inf bans it; repeat."
)
@click.option("--stop", multiple=True, metavar="TEXT", help="Stop before this text; repeat.")
@click.option(
    "--seed", type=int, metavar="N", help="The same seed gives the same text.  [default: a new one each time]"
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each text: ids, finish, times, ...")
@click.option(
    "--logprobs", type=int, metavar="N", help="With --json: log-probabilities, also of the N likeliest tokens."
)
@dtype_option
@device_option
@backend_option
@threads_option
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
    logit_bias: Sequence[str],
    as_json: bool,
    logprobs: int | None,
    dtype: str | None,
    device: str,
    backend: str,
    threads: int | None,
    **settings: Any,
) -> None:
    """Let a model continue a text; it is printed as it is written.

    Several texts, of several prompts or --samples, are written at once, and printed when all are done: an empty line
    stands between them.
    """
    if logprobs is not None and not as_json:
        raise click.UsageError("--logprobs is for --json")
    settings |= {"logit_bias": dict(map(_bias, logit_bias)), "logprobs": logprobs}
    texts = _prompts(prompts, file, batch)
    start = time.perf_counter()
    transformer, tokenizer = load_model(model, dtype, device, backend, threads)
    load_seconds = time.perf_counter() - start

    from model import Completions

    completions = Completions(transformer, tokenizer, texts, **settings)
    alone = len(texts) * settings["samples"] == 1 and not as_json
    if alone:
        print_answer(piece for pieces in (texts, (piece for _, piece in completions)) for piece in pieces)
    else:
        for _ in completions:
            pass
    times = completions.generation.times
    rates = {
        "prefill": times.prefill_tokens / max(times.prefill_seconds, 1e-9),
        "decode": times.decode_tokens / max(times.decode_seconds, 1e-9),
    }
    if as_json:
        import json

        seconds = {"load": load_seconds, "prefill": times.prefill_seconds, "decode": times.decode_seconds}
        for text in completions.texts:
            told: dict[str, Any] = {
                "prompt": texts[text.prompt],
                "text": text.text,
                "ids": text.ids,
                "finish": text.finish,
            }
            if logprobs is not None:
                told |= {"logprobs": text.logprobs, "top_logprobs": text.top_logprobs}
            click.echo(json.dumps({**told, "seconds": seconds, "tokens_per_second": rates}))
    elif not alone:
        click.echo("\n\n".join(texts[text.prompt] + text.text for text in completions.texts))
    click.echo(
        f"prefill {times.prefill_tokens:,} tokens, {rates['prefill']:,.0f} tokens per second;"
        f" decode {times.decode_tokens:,} tokens, {rates['decode']:,.1f} tokens per second",
        err=True,
    )


def _prompts(prompts: Sequence[str], file: str | None, batch: str | None) -> list[str]:
    """What to continue: the arguments, or a file, or the lines of a file, or stdin."""
    if sum(map(bool, (prompts, file, batch))) > 1:
        raise click.UsageError("give one of -p / --prompt, --file and --batch")
    if prompts:
        return [os.fsencode(prompt).decode(errors="replace") for prompt in prompts]
    ((_, content),) = inputs([file or batch or "-"], None)
    text = content.decode(errors="replace").replace("\r\n", "\n")
    if batch is None:
        return [text.rstrip("\n")]
    lines = [line for line in text.split("\n") if line]
    if not lines:
        from bpe import InputError

        raise InputError(f"{batch}: no prompts; write one in each line")
    return lines


def _bias(text: str) -> tuple[int, float]:
    id, _, bias = text.partition("=")
    try:
        return int(id), float(bias)
    except ValueError:
        raise click.UsageError(f"--logit-bias {text}: write ID=NUMBER, such as 13=-5 or 13=-inf") from None
