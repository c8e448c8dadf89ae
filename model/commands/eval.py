"""`bpe eval`: measure a model on texts and questions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from bpe.commands.inputs import watched
from bpe.commands.options import examples, exclude_option, separator_option
from bpe.commands.terminal import Status, bar, shortened
from model.commands.options import device_option, dtype_option, load_model, threads_option


@click.command()
@click.argument("model", metavar="MODEL")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option(
    "--choices",
    multiple=True,
    metavar="FILE",
    help='Questions, a JSON object a line: "question", "choices", "answer" (index from 0); repeat.',
)
@click.option("--delimiter", default=" ", metavar="STRING", help="What stands between a question and a choice.")
@separator_option
@click.option("--field", default="text", metavar="KEY", help="The key of the text in .jsonl files.")
@exclude_option
@click.option("--window", type=int, metavar="N", help="Tokens read at once.  [default: the context, 2,048 at the most]")
@click.option("--stride", type=int, metavar="N", help="From one window to the next.  [default: half the window]")
@click.option(
    "--batch-tokens", type=click.IntRange(min=1), default=4096, metavar="N", help="Tokens that are computed at once."
)
@click.option("--samples", type=click.IntRange(min=100), default=1000, metavar="N", help="Draws of the bootstrap.")
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", help="Of the draws.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@dtype_option
@device_option
@threads_option
@examples(
    "bpe eval runs/tales corpora/prose.txt 'news/*.txt'",
    "bpe eval smollm2 wiki.jsonl.gz --window 1024 --stride 256 --dtype float32",
    "bpe eval smollm2 --choices questions.jsonl",
    "cat *.txt | bpe eval runs/tales - --json",
)
def eval(
    model: str,
    texts: Sequence[str],
    choices: Sequence[str],
    delimiter: str,
    separator: str | None,
    field: str,
    exclude: Sequence[str],
    window: int | None,
    stride: int | None,
    batch_tokens: int,
    samples: int,
    seed: int,
    as_json: bool,
    dtype: str | None,
    device: str,
    threads: int | None,
) -> None:
    """Tell how well a model predicts texts, and how often it chooses the right answer.

    Of each text (a file, directory, glob, .jsonl, .gz, .xz, or - for stdin): bits per byte, which compare models of any
    vocabulary, perplexity per token, which does not, and how often the model held the next token likeliest. A text
    longer than the window is read in windows that overlap, and each token is predicted once, from at least
    window - stride tokens before it. The smaller the stride, the better and the slower.

    Of --choices: how often the right choice is the likeliest behind its question; by its likelihood, by that for each
    of its tokens, and by that for each of its bytes.

    The 95% intervals are of the bootstrap over documents, or blocks of 1,000 bytes where there are fewer than 100
    documents, and over questions.
    """
    if not texts and not choices:
        raise click.UsageError("give texts, or --choices FILE")
    start = time.perf_counter()
    transformer, tokenizer = load_model(model, dtype, device, "torch", threads)

    from model.evaluation.choices import choices_table, evaluate_choices, read_questions
    from model.evaluation.texts import evaluate_texts, read_text, texts_table
    from model.evaluation.windows import check_window

    # 1. Read everything, so that what is wrong is said before the work.
    context = transformer.config.max_seq_len
    window = min(context, 2048) if window is None else window
    stride = max(1, window // 2) if stride is None else stride
    check_window(window, stride, context)
    read = [read_text(tokenizer, watched([text], separator, exclude, field), text) for text in texts]
    questions = [read_questions(tokenizer, file, context, delimiter) for file in choices]

    # 2. Measure.
    settings: dict[str, Any] = {"batch_tokens": batch_tokens, "samples": samples, "seed": seed}
    found: dict[str, Any] = {
        "model": model,
        "dtype": str(transformer.tok_embeddings.weight.dtype).removeprefix("torch."),
        "window": window,
        "stride": stride,
        **settings,
    }
    begun = time.perf_counter()
    if read:
        with _share_done(", ".join(texts)) as progress:
            found |= evaluate_texts(
                transformer, tokenizer, read, window=window, stride=stride, progress=progress, **settings
            )
    found["choices"] = []
    for file, asked in zip(choices, questions, strict=True):
        with _share_done(file) as progress:
            found["choices"].append(evaluate_choices(transformer, asked, file, progress=progress, **settings))
    found["seconds"] = {"load": begun - start, "evaluate": time.perf_counter() - begun}

    # 3. Tell.
    if as_json:
        import json

        click.echo(json.dumps(found, indent=2))
    else:
        tables = [texts_table(found)] if read else []
        tables += [choices_table(found["choices"])] if choices else []
        click.echo("\n".join(table.text() for table in tables), nl=False)
    click.echo(_evaluated(found, bool(read)), err=True)


@contextmanager
def _share_done(name: str) -> Iterator[Callable[[float], None]]:
    """Something to call with the share of the work that is done; it is shown with the time that is left."""
    status = Status()
    start = time.monotonic()

    def show(share: float) -> None:
        left = (time.monotonic() - start) * (1 - share) / max(share, 1e-9)
        status.show(f"evaluating  {bar(share)} {share:4.0%}  {left:,.0f} s left  {shortened(name, 40)}")

    try:
        yield show
    finally:
        status.done()


def _evaluated(found: Mapping[str, Any], with_texts: bool) -> str:
    """What was done, in a line for people."""
    parts = []
    if with_texts:
        everything = found["all_texts"]
        parts.append(
            f"{everything['tokens']:,} tokens in {everything['documents']:,} documents, window {found['window']:,},"
            f" stride {found['stride']:,}"
        )
        if everything["bytes_left_out"]:
            parts.append(f"{everything['bytes_left_out']:,} bytes are not predicted and not counted")
    if found["choices"]:
        parts.append(f"{sum(row['questions'] for row in found['choices']):,} questions")
    return f"{'; '.join(parts)}; {found['dtype']}, {found['seconds']['evaluate']:,.1f} s"
