"""`bpe compare`: set tokenizers side by side on a text."""

from __future__ import annotations

from collections.abc import Sequence

import click

from bpe.commands.inputs import open_tokenizer_or_ranks, watched
from bpe.commands.options import examples, exclude_option, pattern_option, separator_option


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="TOKENIZER TOKENIZER... TEXT")
@click.option("--on", "texts", multiple=True, metavar="TEXT", help="The text, in place of the last argument; repeat.")
@pattern_option
@separator_option
@exclude_option
@click.option("--samples", type=click.IntRange(min=100), default=1000, metavar="N", help="Draws of the bootstrap.")
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", help="Of the draws.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@examples(
    "bpe compare llama3 my.json corpora",
    "bpe compare llama3 o200k_base my.json --on a.txt --on b.txt",
    "cat *.txt | bpe compare llama3 my.json -",
)
def compare(
    names: Sequence[str],
    texts: Sequence[str],
    pattern: str | None,
    separator: str | None,
    exclude: Sequence[str],
    samples: int,
    seed: int,
    as_json: bool,
) -> None:
    """Set tokenizers side by side on your own text: tokens, bytes per token, tokens per word, share never used.

    The last argument is the text (a file, directory, glob, .jsonl, .gz, .xz, or - for stdin), and all before it are
    tokenizers, by name or file; with --on, all arguments are tokenizers. `relative` is the number of tokens over that
    of the first tokenizer. Both 95% intervals are of the paired bootstrap: documents, or blocks of 1,000 bytes where
    there are fewer than 100 documents, are drawn again, the same for all tokenizers.
    """
    from bpe.analysis.compare import compare as compare_tokenizers
    from bpe.analysis.compare import comparison_table

    if not texts:
        *names, text = names
        texts = [text]
    if len(names) < 2:
        raise click.UsageError("give two tokenizers or more, and then a text (or --on TEXT)")
    tokenizers = [(name, open_tokenizer_or_ranks(name, pattern)) for name in names]
    stream = watched(texts, separator, exclude)
    found = compare_tokenizers(tokenizers, stream, name=", ".join(texts), samples=samples, seed=seed)
    if as_json:
        import json

        click.echo(json.dumps(found, indent=2))
        return
    click.echo(comparison_table(found).text(), nl=False)
    size = f"{found['documents']:,} documents, {found['bytes']:,} bytes"
    if found["tokenizers"][0]["tokens_relative_interval"] is None:
        click.echo(f"{size}: too little text for intervals", err=True)
    else:
        click.echo(f"{size}; intervals from {samples:,} draws of {found['units']:,} {found['unit']}", err=True)
