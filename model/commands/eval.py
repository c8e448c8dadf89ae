"""`bpe eval`: measure a model on texts and questions."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from bpe.commands.inputs import named_sources, read_documents
from bpe.commands.options import (
    Command,
    bootstrap_options,
    corpus_text_option,
    examples,
    exclude_option,
    field_option,
    files_argument,
    group,
    progress_options,
    refuse_given,
    separator_option,
)
from bpe.commands.terminal import counted, stdout_columns
from bpe.progress import phase, say
from model.commands.options import (
    bos_option,
    device_option,
    dtype_option,
    ignore_unknown_option,
    load_model,
    place_of,
    threads_option,
)


@click.command(cls=Command, needed={"FILE, -c / --text TEXT or --choices FILE": ("files", "texts", "choices")})
@click.argument("model", metavar="MODEL")
@files_argument
@group(
    "Texts",
    corpus_text_option,
    separator_option,
    field_option,
    exclude_option,
    bos_option,
    click.option("--window", type=int, metavar="N", help="Tokens in a window.  [default: the context, at most 2,048]"),
    click.option(
        "--stride", type=int, metavar="N", help="Tokens from one window to the next.  [default: half the window]"
    ),
)
@group(
    "Questions",
    click.option(
        "--choices",
        multiple=True,
        metavar="FILE",
        help='File of JSON lines with "question", "choices" and "answer" (an index from 0); repeatable.',
    ),
    click.option(
        "--delimiter",
        default=" ",
        show_default="a space",
        metavar="STRING",
        help="String between a question and a choice.",
    ),
)
@bootstrap_options
@group("Output", click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables."))
@group(
    "Computation",
    click.option(
        "--batch-tokens", type=click.IntRange(min=1), default=4096, metavar="N", help="Tokens in a forward pass."
    ),
    dtype_option,
    device_option,
    threads_option,
    ignore_unknown_option,
)
@progress_options(with_events=False)
@examples(
    "bpe eval runs/tales corpora/prose.txt 'news/*.txt'",
    "bpe eval smollm2 wiki.jsonl.gz --window 1024 --stride 256 --dtype float32",
    "bpe eval smollm2 --choices questions.jsonl",
    "cat *.txt | bpe eval runs/tales - --json",
)
def eval(
    model: str,
    files: Sequence[str],
    texts: Sequence[str],
    choices: Sequence[str],
    delimiter: str,
    separator: str | None,
    field: str,
    exclude: Sequence[str],
    window: int | None,
    stride: int | None,
    as_json: bool,
    bos: bool | None,
    dtype: str | None,
    device: str,
    threads: int | None,
    ignore_unknown: bool,
    **settings: Any,
) -> None:
    """Measure a model on texts and multiple-choice questions.

    For each text (a file, directory, glob, - for stdin, or -c TEXT): bits per byte, which can be compared between
    models with different vocabularies; perplexity per token, which cannot; and how often the next token was the most
    likely one. A text longer than the window is read in overlapping windows. Each token is predicted once, with at
    least window - stride tokens before it (fewer at the start of a document); a smaller stride is more accurate and
    slower.

    For --choices: how often the right choice is the most likely one, by its likelihood, by its likelihood per token,
    and by its likelihood per byte.

    The 95% intervals come from a bootstrap over documents, or over blocks of 1,000 bytes if there are fewer than 100
    documents, and over questions.
    """
    sources = named_sources(files, texts)
    if not sources:
        refuse_given("without a text", "separator", "field", "exclude", "window", "stride")
    if not choices:
        refuse_given("without --choices", "delimiter")
    start = time.perf_counter()
    transformer, tokenizer = load_model(model, dtype, device, "torch", threads, bos, ignore_unknown=ignore_unknown)

    with phase("loading PyTorch"):
        from model.evaluation.choices import choices_table, evaluate_choices, read_questions
        from model.evaluation.texts import evaluate_texts, read_text, texts_table
        from model.evaluation.windows import check_window

    # 1. Read everything first, so that wrong input is reported before the work.
    context = transformer.config.max_seq_len
    window = min(context, 2048) if window is None else window
    stride = max(1, window // 2) if stride is None else stride
    check_window(window, stride, context)
    read = [read_text(tokenizer, read_documents([source], separator, exclude, field), name) for name, source in sources]
    with phase("reading the questions"):
        questions = [read_questions(tokenizer, file, context, delimiter) for file in choices]

    # 2. Measure.
    found: dict[str, Any] = {
        "model": model,
        "dtype": str(transformer.tok_embeddings.weight.dtype).removeprefix("torch."),
        "window": window,
        "stride": stride,
        **dict(sorted(settings.items())),
    }
    begun = time.perf_counter()
    if read:
        windows: dict[str, Any] = {"window": window, "stride": stride}
        found |= evaluate_texts(transformer, tokenizer, read, **windows, **settings)
    found["choices"] = []
    for file, asked in zip(choices, questions, strict=True):
        found["choices"].append(evaluate_choices(transformer, asked, file, **settings))
    found["seconds"] = {"load": begun - start, "evaluate": time.perf_counter() - begun}

    # 3. Print.
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        tables = [texts_table(found)] if read else []
        tables += [choices_table(found["choices"])] if choices else []
        click.echo("\n".join(table.text(stdout_columns()) for table in tables), nl=False)
    say(_summary(found, bool(read), place_of(transformer)))


def _summary(found: Mapping[str, Any], with_texts: bool, place: str) -> str:
    parts = []
    if with_texts:
        everything = found["all_texts"]
        parts.append(
            f"{counted(everything['tokens'], 'token')} in {counted(everything['documents'], 'document')},"
            f" window {found['window']:,}, stride {found['stride']:,}"
        )
        if everything["bytes_left_out"]:
            parts.append(f"{everything['bytes_left_out']:,} bytes are not predicted and not counted")
    if found["choices"]:
        parts.append(counted(sum(row["questions"] for row in found["choices"]), "question"))
    return f"{'; '.join(parts)}; {place}; {found['seconds']['evaluate']:,.1f} s"
