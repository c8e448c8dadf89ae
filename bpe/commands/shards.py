"""`bpe shards`: write, verify and export token shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bpe.commands.inputs import check_sources
from bpe.commands.next_steps import name_next
from bpe.commands.options import (
    Command,
    examples,
    exclude_option,
    field_option,
    group,
    progress_options,
    refuse_given,
    separator_option,
    tell_defaults,
    tokenizer_option,
)
from bpe.commands.terminal import counted
from bpe.commands.types import Share, parse_size
from bpe.progress import current, say

if TYPE_CHECKING:
    from bpe.shards import Shards, ShardSources


SHARDS = "shards"
"""The directory that `bpe shards` writes to and `bpe pretrain` reads from by default."""


@click.command(cls=Command, needed={"CORPUS (- for stdin)": ("corpus", "verify", "export")})
@click.argument("corpus", nargs=-1, metavar="CORPUS...")
@group(
    "Write",
    click.option(
        "-o", "--output", metavar="DIR", help=f"Directory to write to.  [default: {SHARDS}, if it does not exist]"
    ),
    tokenizer_option,
    click.option(
        "--shard-tokens", type=parse_size, default="64M", metavar="N", help="Largest number of tokens in a shard."
    ),
    click.option(
        "--bos/--no-bos",
        default=None,
        help="Begin each document with the token that begins a text.  [default: if the tokenizer puts it in front]",
    ),
    click.option(
        "--eos/--no-eos",
        default=None,
        help="End each document with the token that ends a text.  [default: if the tokenizer has one]",
    ),
    click.option("--threads", type=int, metavar="N", help="Number of encoding threads.  [default: all processors]"),
)
@group(
    "Held-out documents",
    click.option(
        "--held-out", type=Share(), default=0.05, metavar="SHARE", help="Share of the documents to keep from training."
    ),
    click.option("--seed", type=int, default=0, metavar="N", help="Random seed of the choice of these documents."),
)
@group(
    "Corpus",
    separator_option,
    field_option,
    click.option(
        "--errors",
        type=click.Choice(["keep", "replace", "ignore", "strict"]),
        default="keep",
        help="How to handle bytes that are not valid UTF-8.",
    ),
    exclude_option,
)
@group(
    "Verify and export",
    click.option("--verify", metavar="DIR", help="Compare the shards in DIR with their sources, or with CORPUS."),
    click.option("--hashes-only", is_flag=True, help="With --verify: check the hashes, but read no sources."),
    click.option("--export", metavar="DIR", help="Write the shards in DIR to OUTPUT in another format."),
    click.option(
        "--format",
        "export_format",
        type=click.Choice(["parquet", "arrow", "npy"]),
        default="parquet",
        help="With --export: format of the files.",
    ),
)
@progress_options()
@examples(
    "bpe shards corpora -t tokenizer.json",
    "bpe shards corpora --separator '<|end_of_text|>' -t my.json -o data",
    "bpe shards stories.jsonl.gz --field story -t llama3 -o data",
    "bpe shards 'web/*.parquet' -t llama3 -o web-shards --held-out 0.001 --no-bos",
    "bpe shards --verify data",
    "bpe shards --export data -o data-parquet --format parquet",
)
@click.pass_context
def shards(
    context: click.Context,
    /,
    corpus: Sequence[str],
    name: str,
    output: str | None,
    verify: str | None,
    hashes_only: bool,
    export: str | None,
    export_format: str,
    separator: str | None,
    field: str,
    errors: str,
    exclude: Sequence[str],
    **options: Any,
) -> None:
    """Encode documents into token shards for `bpe pretrain`.

    CORPUS is files, directories, globs, or - for stdin, as for `bpe train`. To resume after an interruption, run the
    same command again; the files come out identical.

    A document is held out depending on a hash of its text and the seed, so adding other documents does not move it.

    --verify checks the hashes of all files, reads the sources again, and compares each document with its ids.
    --export writes a file in another format for each shard.
    """
    if verify and export:
        raise click.UsageError("give either --verify or --export", context)
    if export and not output:
        raise click.UsageError("missing -o / --output DIR", context)
    if not verify:
        refuse_given("without --verify DIR", "hashes_only")
    if not export:
        refuse_given("without --export DIR", "export_format")
    writing = ("shard_tokens", "bos", "eos", "threads", "held_out", "seed")
    reading = ("separator", "field", "errors", "exclude")
    if verify:
        refuse_given("with --verify, which reads them from the shards", "output", *writing, *reading)
    if hashes_only:
        refuse_given("with --hashes-only", "corpus", "name")
    if options["held_out"] == 0:
        refuse_given("with --held-out 0", "seed")
    if export:
        refuse_given("with --export", "corpus", "name", *writing, *reading)
    if verify:
        is_given = context.get_parameter_source("name") is click.core.ParameterSource.COMMANDLINE
        _verify_shards(verify, corpus or None, hashes_only, name if is_given else None)
    elif export:
        from bpe.shards import export_shards

        files = export_shards(export, str(output), export_format)
        text = f"{output}: {counted(len(files), 'file')} in format {export_format}"
        current().done(text, output=output, files=[str(file) for file in files], format=export_format)
    else:
        from bpe.shards import ShardSources

        check_sources(corpus, awaited="the corpus")
        output = output or _default_output()
        _write_shards(ShardSources(corpus, field, separator, errors, exclude), name, output, options)


def _default_output() -> str:
    """Return the default directory to write to, which is empty, absent, or has unfinished shards to resume.

    Raises:
        InputError: When the directory has anything else in it.
    """
    from bpe.errors import InputError
    from bpe.shards.layout import INDEX, WORK

    directory = Path(SHARDS)
    if (directory / INDEX).exists() or (directory.exists() and not (directory / WORK).exists()):
        raise InputError(f"{SHARDS}: already exists; give -o DIR to name another directory, or to replace these shards")
    tell_defaults(output=SHARDS)
    return SHARDS


def _write_shards(sources: ShardSources, name: str, output: str, options: Mapping[str, Any]) -> None:
    from bpe import Tokenizer
    from bpe.locate import locate
    from bpe.shards import write_shards

    path = locate(name)
    file = _tokenizer_file(path)
    written = write_shards(sources, Tokenizer.from_file(path), output, tokenizer_file=file, **options)
    parts = [
        f"{counted(written.document_count(split), 'document')}, {counted(written.token_count(split), 'token')}, {label}"
        for split, label in (("train", "to train on"), ("held_out", "held out"))
    ]
    if written.bos_id is None and written.eos_id is None and options["eos"] is None:
        say(
            f"{output}: no token separates the documents, because {path} has no token that ends a text; train the"
            " tokenizer with --special '<|end_of_text|>' to separate them"
        )
    current().done(
        f"{output}: {'; '.join(parts)}",
        output=output,
        train=_counts(written, "train"),
        held_out=_counts(written, "held_out"),
    )
    name_next(["pretrain", "--data", Path(output)])


def _counts(shards: Shards, split: str) -> dict[str, int]:
    return {
        "documents": shards.document_count(split),
        "tokens": shards.token_count(split),
        "bytes": shards.byte_count(split),
    }


def _tokenizer_file(path: Path) -> Path:
    """Return the tokenizer file at a path, or in the model directory at that path."""
    from bpe.formats import find_tokenizer

    return find_tokenizer(path) if path.is_dir() else path


def _verify_shards(directory: str, sources: Sequence[str] | None, hashes_only: bool, name: str | None) -> None:
    from bpe.locate import locate
    from bpe.shards import verify_shards

    file = None if name is None else _tokenizer_file(locate(name))
    found = verify_shards(directory, sources=sources, hashes_only=hashes_only, tokenizer_file=file)
    compared = f"; {found.documents:,} documents, {found.bytes:,} bytes, match the sources"
    current().done(
        f"{directory}: {found.files:,} files have the right hashes{'' if hashes_only else compared}",
        to_stdout=True,
        directory=directory,
        files=found.files,
        documents=None if hashes_only else found.documents,
        bytes=None if hashes_only else found.bytes,
    )
