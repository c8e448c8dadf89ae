"""`bpe shards`: write, check and export token shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from bpe.commands.options import examples, exclude_option, field_option, separator_option, tokenizer_option
from bpe.commands.terminal import Status, size

if TYPE_CHECKING:
    from bpe.shards import ShardSources, ShardsProgress


@click.command()
@click.argument("corpus", nargs=-1, metavar="CORPUS...")
@tokenizer_option
@click.option("-o", "--output", metavar="DIR", help="The directory to write the shards into.")
@click.option("--verify", metavar="DIR", help="Compare shards with their sources, which may be named anew.")
@click.option("--hashes-only", is_flag=True, help="With --verify: check hashes, and read no sources.")
@click.option("--export", metavar="DIR", help="Write shards in another format into OUTPUT.")
@click.option("--format", "export_format", default="parquet", metavar="NAME", help="Of --export: parquet, arrow, npy.")
@click.option("--held-out", type=float, default=0.05, metavar="SHARE", help="Share of documents kept from training.")
@click.option("--shard-tokens", type=size, default="64M", metavar="N", help="Tokens in a shard at most.")
@click.option("--bos/--no-bos", default=True, help="Begin each document with <|begin_of_text|>.")
@click.option("--eos/--no-eos", default=True, help="End each document with <|end_of_text|>.")
@click.option("--seed", type=int, default=0, metavar="N", help="Of the choice of documents that are held out.")
@separator_option
@field_option
@click.option(
    "--errors",
    type=click.Choice(["keep", "replace", "ignore", "strict"]),
    default="keep",
    help="What to do with bytes that are not UTF-8.",
)
@exclude_option
@click.option("--threads", type=int, metavar="N", help="Threads that encode.  [default: all processors]")
@examples(
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
    """Encode documents into token shards, which `bpe pretrain` reads.

    The corpus is files, directories, globs, or - for stdin, as for `bpe train`. Work that was interrupted goes on when
    the command is given again, and leaves the same files.

    --verify checks the hashes of all files, reads the sources again where the index says they were, or those that are
    given, and compares each document with its ids. --export writes each shard as a file of another format.
    """
    if verify and export:
        raise click.UsageError("give either --verify or --export", context)
    if not output and not verify:
        raise click.UsageError("missing -o / --output", context)
    if not corpus and not verify and not export:
        raise click.UsageError("missing CORPUS", context)
    if verify:
        is_given = context.get_parameter_source("name") is click.core.ParameterSource.COMMANDLINE
        _verify_shards(verify, corpus or None, hashes_only, name if is_given else None)
    elif export:
        from bpe.shards import export_shards

        files = export_shards(export, str(output), export_format)
        click.echo(f"{output}: {len(files):,} files in format {export_format}", err=True)
    else:
        from bpe.shards import ShardSources

        _write_shards(ShardSources(corpus, field, separator, errors, exclude), name, str(output), options)


def _write_shards(sources: ShardSources, name: str, output: str, options: Mapping[str, Any]) -> None:
    from bpe import Tokenizer
    from bpe.locate import locate
    from bpe.shards import write_shards

    status = Status()

    def show(progress: ShardsProgress) -> None:
        status.show(f"encoding  {progress.bytes / 1e6:,.1f} MB in {progress.documents:,} documents")

    path = locate(name)
    written = write_shards(sources, Tokenizer.from_file(path), output, tokenizer_file=path, progress=show, **options)
    parts = [
        f"{written.document_count(split):,} documents, {written.token_count(split):,} tokens, {label}"
        for split, label in (("train", "to train on"), ("held_out", "held out"))
    ]
    status.done(f"{output}: {'; '.join(parts)}")


def _verify_shards(directory: str, sources: Sequence[str] | None, hashes_only: bool, name: str | None) -> None:
    from bpe.locate import locate
    from bpe.shards import verify_shards

    status = Status()

    def show(documents: int, size: int) -> None:
        status.show(f"comparing  {size / 1e6:,.1f} MB in {documents:,} documents")

    file = None if name is None else locate(name)
    found = verify_shards(directory, sources=sources, hashes_only=hashes_only, tokenizer_file=file, progress=show)
    compared = (
        "" if hashes_only else f"; {found.documents:,} documents, {found.bytes:,} bytes, are those of the sources"
    )
    status.done()
    click.echo(f"{directory}: {found.files:,} files have the right hashes{compared}")
