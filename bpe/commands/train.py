"""`bpe train`: learn a vocabulary from text."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bpe.commands.describe import print_report
from bpe.commands.inputs import lines_of, open_tokenizer_or_ranks, watched
from bpe.commands.options import examples, exclude_option, field_option
from bpe.commands.terminal import Status, bar, readable, size

if TYPE_CHECKING:
    from bpe.training.settings import MergeStep, Trained, TrainingProgress


@click.command()
@click.argument("corpus", nargs=-1, metavar="CORPUS...")
@click.option("-o", "--output", metavar="FILE", help="Where to write: .json, or .model / .tiktoken.")
@click.option("--vocab-size", type=int, metavar="N", help="Tokens in all, with the special ones.")
@click.option("--pattern", metavar="NAME|REGEX", help="How text is split: llama3, o200k, ...  [default: llama3]")
@click.option("--base", metavar="NAME|FILE", help="A tokenizer to start from: its ids stay, new tokens are added.")
@click.option(
    "--special", multiple=True, metavar="TOKEN", help="A special token, in place of the pattern's own; repeat."
)
@click.option("--no-special", is_flag=True, help="No special tokens at all.")
@click.option("--require", metavar="FILE", help="Tokens, one a line, that are to be there however rare they are.")
@click.option("--tie-break", type=click.Choice(["bytes", "huggingface"]), default="bytes", help="Order of equal pairs.")
@click.option("--min-frequency", type=int, default=1, metavar="N", help="Merge no pair that is rarer.")
@click.option(
    "--max-token-length", type=int, metavar="BYTES", help="Make no token that is longer.  [default: no limit]"
)
@click.option("--allow-smaller", is_flag=True, help="Accept fewer tokens where the text has no more pairs.")
@click.option(
    "--weight", multiple=True, metavar="CORPUS=X", help="Count this source X times, such as wiki.txt=0.5; repeat."
)
@field_option
@click.option(
    "--errors",
    type=click.Choice(["replace", "ignore", "strict"]),
    default="replace",
    help="What to do with bytes that are not UTF-8.",
)
@exclude_option
@click.option("--threads", type=int, metavar="N", help="Threads that count.  [default: all processors]")
@click.option("--max-memory", type=size, metavar="SIZE", help="Of the process, such as 2G; the rest is put on disk.")
@click.option(
    "--resume",
    metavar="DIR",
    help="Go on with the work in this directory, or begin it there.  [default: OUTPUT.work]",
)
@click.option("--trace", type=click.IntRange(min=0), default=0, metavar="N", help="Print the first N merges.")
@click.option("--report", metavar="DIR", help="Write what was learned: tables, JSON, and plots.")
@click.option("--held-out", multiple=True, metavar="TEXT", help="Text that is not trained on, for the report; repeat.")
@examples(
    "bpe train corpora -o my.json --vocab-size 4096",
    "bpe train 'src/**/*.py' -o code.json --vocab-size 8192 --special '<|endoftext|>'",
    "zcat big.txt.gz | bpe train - -o big.model --vocab-size 32000 --pattern gpt2",
    "bpe train web.parquet code/ --weight code/=2 -o mix.json --vocab-size 128000 --max-memory 2G",
    "bpe train --resume mix.json.work",
)
@click.pass_context
def train(context: click.Context, /, **options: Any) -> None:
    """Learn a vocabulary from text: files, directories, globs, or - for stdin.

    .jsonl and .parquet files hold a document in each record, other files are one each; all but .parquet may be
    compressed: .gz, .xz, .bz2, .zst. Work that takes longer than half a minute is kept in OUTPUT.work until it is done,
    and goes on there when the command is given again, or with --resume alone.
    """
    from bpe.errors import InputError
    from bpe.training.work import read_state

    if options["resume"] and not options["corpus"]:
        note = read_state(options["resume"]).get("note", {})
        if note.get("directory") != os.getcwd():
            raise InputError(f"{options['resume']}: this work was begun in {note.get('directory')}; go on from there")
        options = {**note["options"], "resume": options["resume"]}
    for name, flag in (("corpus", "CORPUS"), ("output", "-o / --output"), ("vocab_size", "--vocab-size")):
        if not options[name]:
            raise click.UsageError(f"missing {flag}", context)
    _train({"directory": os.getcwd(), "options": options}, **options)


def _train(
    note: Mapping[str, Any],
    *,
    corpus: Sequence[str],
    output: str,
    base: str | None,
    special: Sequence[str],
    no_special: bool,
    require: str | None,
    weight: Sequence[str],
    resume: str | None,
    report: str | None,
    held_out: Sequence[str],
    **options: Any,
) -> None:
    from bpe import InputError
    from bpe import train as train_tokenizer
    from bpe.formats import SUFFIXES
    from bpe.training.work import STATE

    if Path(output).suffix not in SUFFIXES:
        raise InputError(f"{output}: unknown suffix; write to one of {', '.join(SUFFIXES)}")
    if not Path(output).absolute().parent.is_dir():
        raise InputError(f"{output}: there is no directory {Path(output).parent}")
    work = resume or f"{output}.work"
    if held_out and not report:
        raise click.UsageError("--held-out is text for --report DIR")
    if report:
        from bpe.analysis.report import check_directory

        check_directory(report)
    if (Path(work) / STATE).exists():
        click.echo(f"going on with the work in {work}", err=True)
    show = _TrainingStatus()

    def trained(result: Trained) -> None:
        result.tokenizer.save(output)
        show.done(result, output)
        if report:
            from bpe.analysis.report import write_training_report

            texts = ((text, watched([text], None, options["exclude"])) for text in held_out)
            print_report(write_training_report(report, result.tokenizer, result.uses, texts))

    try:
        train_tokenizer(
            corpus,
            base=open_tokenizer_or_ranks(base, options["pattern"]) if base else None,
            special_tokens=() if no_special else special or None,
            required_tokens=lines_of(require) if require else (),
            weights=_weights(corpus, weight),
            name=Path(output).stem,
            work=work,
            note=note,
            progress=show.progress,
            traced=show.step,
            trained=trained,
            **options,
        )
    except BaseException:
        if (Path(work) / STATE).exists():
            click.echo(f"what was done is kept: bpe train --resume {work}", err=True)
        raise


def _weights(corpus: Sequence[str], weight: Sequence[str]) -> list[Any] | None:
    if not weight:
        return None
    weights: list[Any] = [1] * len(corpus)
    for each in weight:
        source, _, number = each.rpartition("=")
        if source not in corpus:
            raise click.UsageError(f"--weight {each}: write SOURCE=NUMBER, where SOURCE is one of {', '.join(corpus)}")
        weights[list(corpus).index(source)] = number
    return weights


class _TrainingStatus:
    """What is said while a vocabulary is trained, and after."""

    def __init__(self) -> None:
        self._status = Status()
        self._start = time.monotonic()
        self._headed = False

    def progress(self, so_far: TrainingProgress) -> None:
        seconds = time.monotonic() - self._start
        if so_far.phase == "merge":
            self._status.show(f"merging   {bar(so_far.merges / (so_far.wanted or 1))} {so_far.merges:,} merges")
            return
        rate = f"{so_far.size / 1e6:,.1f} MB in {so_far.documents:,} documents, {so_far.size / 1e6 / seconds:,.0f} MB/s"
        if so_far.total and so_far.read:
            left = seconds * (so_far.total - so_far.read) / so_far.read
            rate = f"{bar(so_far.read / so_far.total)} {rate}, {left:,.0f} s left"
        self._status.show(f"counting  {rate}")

    def step(self, step: MergeStep) -> None:
        if not self._headed:
            click.echo(f"{'id':>7}  {'count':>12}  {'pair':<24}  {'token':<16}  shortens")
        self._headed = True
        before, after = step.word, [*step.word]
        after[step.place : step.place + 2] = [step.left + step.right]
        pair = f"{readable(step.left)} + {readable(step.right)}"
        click.echo(
            f"{step.rank:>7}  {step.times:>12,.10g}  {pair:<24}  {readable(step.left + step.right):<16}"
            f"  {' '.join(map(readable, before))} -> {' '.join(map(readable, after))}"
        )

    def done(self, result: Trained, output: str) -> None:
        self._status.done()
        if result.invalid:
            places = sum(invalid.sequences for invalid in result.invalid)
            first = result.invalid[0]
            click.echo(
                f"{places:,} places in {len(result.invalid):,} files are not UTF-8; the first: {first.name},"
                f" {first.first}",
                err=True,
            )
        click.echo(
            f"{output}: {result.tokenizer.n_vocab:,} tokens from {result.size / 1e6:,.1f} MB in {result.documents:,}"
            f" documents, {time.monotonic() - self._start:.1f} s",
            err=True,
        )
