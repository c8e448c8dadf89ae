"""`bpe compare`: compare tokenizers on a text."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import click

from bpe.commands.inputs import named_sources, open_tokenizer_or_ranks, read_documents
from bpe.commands.options import (
    Command,
    bootstrap_options,
    corpus_text_option,
    examples,
    exclude_option,
    group,
    pattern_option,
    progress_options,
    refuse_given,
    separator_option,
)
from bpe.commands.terminal import counted, stdout_columns
from bpe.progress import say


@click.command(cls=Command)
@click.argument("names", nargs=-1, required=True, metavar="TOKENIZER TOKENIZER... FILE")
@group(
    "Input",
    click.option("--on", "files", multiple=True, metavar="FILE", help="File to read instead of the last argument."),
    corpus_text_option,
    pattern_option,
    separator_option,
    exclude_option,
)
@bootstrap_options
@group("Output", click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table."))
@progress_options(with_events=False)
@examples(
    "bpe compare llama3 my.json corpora",
    "bpe compare llama3 my.json -c 'Hello world'",
    "bpe compare bpe.json pieces.model unigram.model wordpiece.json corpora",
    "bpe compare llama3 o200k_base my.json --on a.txt --on b.txt",
    "cat *.txt | bpe compare llama3 my.json -",
)
def compare(
    names: Sequence[str],
    files: Sequence[str],
    texts: Sequence[str],
    pattern: str | None,
    separator: str | None,
    exclude: Sequence[str],
    samples: int,
    seed: int,
    as_json: bool,
) -> None:
    """Compare tokenizers side by side on your text.

    The last argument is a file, directory, glob, or - for stdin, whose text is encoded. All arguments before it are
    tokenizers, by name or file. With --on or -c, all arguments are tokenizers.

    A short text of -c is shown as each tokenizer cuts it: the number of tokens, and the tokens with | between them.

    The table shows tokens, bytes per token, tokens per word, and the share of the vocabulary that the text never uses.
    `relative` is the number of tokens divided by that of the first tokenizer. The 95% intervals come from a paired
    bootstrap over documents, or over blocks of 1,000 bytes if there are fewer than 100 documents.
    """
    from bpe.analysis.compare import compare as compare_tokenizers
    from bpe.analysis.compare import comparison_table
    from bpe.analysis.cuts import MOST_BYTES, cuts, cuts_text
    from bpe.patterns import find_pattern

    if not files and not texts:
        *names, file = names
        files = [file]
    if len(names) < 2:
        raise click.UsageError("give two tokenizers or more, followed by a file (or --on FILE, or -c TEXT)")
    sources = named_sources(files, texts)
    tokenizers = [(name, open_tokenizer_or_ranks(name, pattern)) for name in names]
    if pattern is not None and find_pattern(pattern) not in [tokenizer.pattern for _, tokenizer in tokenizers]:
        refuse_given("on tokenizers that store their split pattern", "pattern")
    documents = read_documents([source for _, source in sources], separator, exclude)
    found = compare_tokenizers(
        tokenizers, documents, name=", ".join(name for name, _ in sources), samples=samples, seed=seed
    )
    short = [content for content in map(os.fsencode, texts) if len(content) <= MOST_BYTES]
    cut = [cuts(tokenizers, text) for text in short]
    if as_json:
        click.echo(json.dumps(found | {"cuts": cut}, indent=2))
    else:
        for each in cut:
            click.echo(cuts_text(each, stdout_columns()))
        click.echo(comparison_table(found).text(stdout_columns()), nl=False)
        say(_summary(found, samples))


def _summary(found: Mapping[str, Any], samples: int) -> str:
    size = f"{counted(found['documents'], 'document')}, {counted(found['bytes'], 'byte')}"
    if found["tokenizers"][0]["tokens_relative_interval"] is None:
        return f"{size}: too little text for intervals"
    return f"{size}; intervals from {samples:,} draws of {found['units']:,} {found['unit']}"
