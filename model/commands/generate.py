"""`bpe generate`: continue texts with a model."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from bpe.commands.inputs import read_prompt_lines, read_prompts, refuse_text
from bpe.commands.options import (
    Command,
    examples,
    files_argument,
    group,
    progress_options,
    special_option,
    texts_option,
)
from bpe.commands.terminal import counted, print_pieces
from bpe.progress import phase, say
from model.commands.grammars import compiled, grammar_options, read_grammar
from model.commands.options import (
    bos_option,
    computation_options,
    eos_token_option,
    image_option,
    load_model,
    penalty_options,
    place_of,
    read_images,
    sampling_options,
    sampling_settings,
)
from model.commands.speculating import (
    check_speculation,
    open_speculation,
    speculation_line,
    speculation_options,
    speculation_record,
)

if TYPE_CHECKING:
    from model import Completions


TEMPERATURE, TOP_P = 0.8, 0.95


@click.command(cls=Command)
@click.argument("model", metavar="MODEL")
@files_argument
@group(
    "Prompts",
    texts_option("Text to continue; repeatable.  [default: the files, or stdin]"),
    click.option(
        "--file", metavar="FILE", hidden=True, help="File whose content is the prompt, like the argument FILE."
    ),
    click.option("--batch", metavar="FILE", help="File with one prompt per line; all are continued at once."),
    bos_option,
    image_option,
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
    *penalty_options,
    click.option(
        "--logit-bias",
        multiple=True,
        metavar="ID=X",
        help="Amount to add to the logit of a token; -inf bans it; repeatable.",
    ),
)
@grammar_options
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
@computation_options()
@speculation_options
@progress_options(with_events=False)
@examples(
    "bpe generate runs/tales -p 'Once upon a time'",
    "bpe generate runs/tales beginning.txt",
    "echo 'One day, a fox' | bpe generate runs/tales --temperature 0 --max-tokens 100",
    "bpe generate smollm2 -p 'The sea is' --samples 4 --stop . --json --logprobs 5",
    "bpe generate smollm2 report.txt --speculate ngram",
    "bpe generate smollm2 --batch prompts.txt --dtype bfloat16 --threads 2",
    "bpe generate smollm2 -p 'Paris is the capital of' --regex ' (France|Spain|Italy)'",
)
def generate(
    model: str,
    files: Sequence[str],
    texts: Sequence[str],
    file: str | None,
    batch: str | None,
    allow_special: bool,
    image_files: Sequence[str],
    logit_bias: Sequence[str],
    as_json: bool,
    logprobs: int | None,
    bos: bool | None,
    eos_tokens: Sequence[str],
    dtype: str | None,
    device: str,
    backend: str,
    cache_dtype: str | None,
    threads: int | None,
    ignore_unknown: bool,
    speculate: str | None,
    draft: str | None,
    draft_layers: int | None,
    **settings: Any,
) -> None:
    """Continue a text with a model.

    The text is -p TEXT, the content of a FILE, or stdin. A single text is printed while it is generated. Several texts,
    from several prompts or --samples, are generated together and printed at the end, separated by empty lines.

    Images stand before each text, or where it has <|image|> with --allow-special.
    """
    if logprobs is not None and not as_json:
        raise click.UsageError("--logprobs needs --json")
    from bpe.locate import locate

    settings |= {"logit_bias": dict(map(_bias, logit_bias)), "logprobs": logprobs}
    settings["allowed_special"] = "all" if allow_special else frozenset()
    source = read_grammar(settings)
    inputs = _prompts(texts, [*files, *([file] if file else [])], batch)
    refuse_text(model)
    path = locate(model, "model")  # before torch is imported, so that a wrong name fails at once
    check_speculation(speculate, draft, draft_layers)
    prompts = list(inputs)
    from model.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(path, ignore_unknown)
    settings = sampling_settings(checkpoint, settings, TEMPERATURE, TOP_P)
    images = read_images(model, checkpoint.config, image_files)
    start = time.perf_counter()
    transformer, tokenizer = load_model(
        path, dtype, device, backend, threads, bos, eos_tokens, ignore_unknown, cache_dtype
    )
    speculation = open_speculation(
        speculate,
        draft,
        draft_layers,
        path,
        checkpoint.config,
        tokenizer,
        dtype=dtype,
        device=device,
        backend=backend,
        threads=threads,
        ignore_unknown=ignore_unknown,
    )
    load_seconds = time.perf_counter() - start

    from model import Completions

    grammar = compiled(source, transformer, tokenizer)
    completions = Completions(
        transformer, tokenizer, prompts, images=images, grammar=grammar, speculation=speculation, **settings
    )
    if len(prompts) * settings["samples"] == 1 and not as_json:
        print_pieces(piece for pieces in (prompts, (piece for _, piece in completions)) for piece in pieces)
    else:
        with phase("generating", None, "tokens") as generating:
            for count, _ in enumerate(completions, 1):
                generating.update(count)
        if as_json:
            _print_json(completions, prompts, load_seconds, with_logprobs=logprobs is not None)
        else:
            whole = "\n\n".join(prompts[text.prompt] + text.text for text in completions.texts)
            print_pieces(piece for piece in [whole])
    say(place_of(transformer))
    times, rates = completions.generation.times, _rates(completions)
    say(
        f"prefill {counted(times.prefill_tokens, 'token')}, {rates['prefill']:,.0f} tokens per second;"
        f" decode {counted(times.decode_tokens, 'token')}, {rates['decode']:,.1f} tokens per second"
    )
    if speculation is not None:
        say(speculation_line(speculation.by, completions.generation.speculated))


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
    measured: dict[str, Any] = {"seconds": seconds, "tokens_per_second": _rates(completions)}
    if completions.generation.speculation is not None:
        measured["speculation"] = speculation_record(
            completions.generation.speculation.by, completions.generation.speculated
        )
    for text in completions.texts:
        record: dict[str, Any] = {
            "prompt": prompts[text.prompt],
            "text": text.text,
            "ids": text.ids,
            "finish": text.finish,
        }
        if text.finish == "end" and text.ids[-1] in completions.generation.end_ids:
            record["end"] = {"id": text.ids[-1], "text": completions.text_of(text.ids[-1])}
        if with_logprobs:
            record |= {"logprobs": text.logprobs, "top_logprobs": text.top_logprobs}
        click.echo(json.dumps(record | measured))


def _prompts(texts: Sequence[str], files: Sequence[str], batch: str | None) -> Iterator[str]:
    """Return an iterator over the texts to continue, which has refused wrong arguments, but has not read stdin."""
    if batch is None:
        return read_prompts(files, texts)
    if texts or files:
        other = "-p / --prompt" if texts else files[0]
        raise click.UsageError(f"--batch and {other} exclude each other; give only one of them")
    return read_prompt_lines(batch)


def _bias(text: str) -> tuple[int, float]:
    id, _, bias = text.partition("=")
    try:
        return int(id), float(bias)
    except ValueError:
        raise click.UsageError(f"--logit-bias {text}: write ID=NUMBER, such as 13=-5 or 13=-inf") from None
