"""Descriptions of tokenizers and shards as rows, and reports on how a tokenizer encodes texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bpe.columns import clipped_in_the_middle
from bpe.commands.inputs import read_documents
from bpe.commands.terminal import counted, shortened, stdout_columns
from bpe.display import visible

if TYPE_CHECKING:
    from bpe import Tokenizer
    from bpe.corpus import CorpusSource
    from bpe.drawing import PictureSettings


def tokenizer_rows(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    """Return labels and values that describe a tokenizer."""
    vocabulary, pattern = tokenizer.vocabulary, tokenizer.pattern
    split = pattern.text if pattern.name is None else f"{pattern.name}  {pattern.text}"
    tokens = [token for _, token in vocabulary.items()]
    specials = sorted(tokenizer.special_tokens, key=lambda token: tokenizer.special_tokens[token])
    others = [token.content for token in tokenizer.vocabulary.added_tokens if not token.special]
    longest = sorted(tokens, key=len, reverse=True)[:5]
    unknown = tokenizer.unknown_bytes.hex(" ")
    return [
        ("tokenizer", tokenizer.name),
        ("vocabulary", f"{tokenizer.vocabulary.token_count:,} tokens, ids up to {tokenizer.max_token_value:,}"),
        *_algorithm_rows(tokenizer, split),
        ("special tokens", _named(specials)),
        *([("added tokens", f"{_named(others)} (always recognised)")] if others else []),
        *boundary_rows(tokenizer),
        *([("unknown bytes", f"{unknown} (left out)")] if unknown else []),
        ("mean token length", f"{sum(map(len, tokens)) / len(tokens):.2f} bytes"),
        ("longest tokens", ", ".join(f"{shortened(visible(token))!r} ({len(token)})" for token in longest)),
    ]


def _algorithm_rows(tokenizer: Tokenizer, split: str) -> list[tuple[str, str]]:
    vocabulary = tokenizer.vocabulary
    if vocabulary.library is not None:
        return [("algorithm", f"{vocabulary.algorithm}, encoded by the package {vocabulary.library.package}")]
    return [("merges", f"{vocabulary.merge_count:,}"), ("pattern", split)]


def boundary_rows(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    """Return labels and values that describe what begins and ends a text, and where each comes from."""
    from bpe.boundaries import KNOWN_NAME

    said = tokenizer.vocabulary.boundaries

    def named(id: int) -> str:
        try:
            return f"{visible(tokenizer.decode_single_token_bytes(id))} ({id})"
        except KeyError:
            return f"{id}, which is the id of no token"

    def listed(ids: Sequence[int], source: str, none: str) -> str:
        reason = "by name" if source == KNOWN_NAME else f"from {source}"
        return (", ".join(map(named, ids)) or none) + (f", {reason}" if source else "")

    begin = () if said.bos_id is None else (said.bos_id,)
    return [
        ("begin", listed(begin, said.bos_from, "no token")),
        ("in front", listed(said.prefix_ids, said.prefix_from, "nothing")),
        ("end", listed(said.eos_ids, said.eos_from, "no token")),
        *([("behind", listed(said.suffix_ids, said.suffix_from, "nothing"))] if said.suffix_ids else []),
    ]


def _named(tokens: Sequence[str]) -> str:
    """The number of tokens, and the first of them."""
    named = ", ".join(visible(token.encode()) for token in tokens[:4])
    return f"{len(tokens):,}" + (f": {named}" if tokens else "") + (", ..." if len(tokens) > 4 else "")


def shards_rows(directory: Path) -> list[tuple[str, str]]:
    """Return labels and values that describe a directory of shards."""
    from bpe.shards import Shards

    shards = Shards(directory)
    rows = [
        ("shards", str(directory)),
        ("vocabulary", f"{shards.n_vocab:,} ids, {shards.dtype.name} each ({shards.tokenizer_path.name})"),
    ]
    for split, label in (("train", "to train on"), ("held_out", "held out")):
        tokens, size = shards.token_count(split), shards.byte_count(split)
        documents = counted(shards.document_count(split), "document")
        rows.append((label, f"{documents}, {counted(tokens, 'token')}, {counted(size, 'byte')}"))
    rows.append(("tokenizer", f"SHA-256 {shards.tokenizer_sha256}"))
    for source in shards.corpus["sources"]:
        name = source["source"] or "documents of a program"
        files = f" in {counted(len(source['files']), 'file')}" if source["files"] else ""
        counts = f"{counted(source['documents'], 'document')}{files}, {source['bytes']:,} bytes"
        rows.append(("source", f"{name}: {counts}, CRC-32 {source['crc32']:08x}"))
    return rows


def report_on(
    tokenizer: Tokenizer,
    sources: Sequence[tuple[str, CorpusSource]],
    separator: str | None,
    exclude: Sequence[str],
    as_json: bool,
    directory: str | None,
    pictures: PictureSettings | None,
) -> None:
    """Print how the tokenizer encodes the texts, and write the report into the directory if one is given."""
    from bpe.analysis.report import check_directory, report_of, write_report
    from bpe.analysis.usage import usage_of

    if directory is not None:
        check_directory(directory)
    uses = (usage_of(tokenizer, read_documents([source], separator, exclude), name) for name, source in sources)
    report = report_of(tokenizer, uses)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        print_report(report)
    if directory is not None:
        files = write_report(report, directory, pictures)
        click.echo(f"{directory}: {', '.join(file.name for file in files)}", err=True)


def print_report(report: Mapping[str, Any]) -> None:
    """Print the tables of a report."""
    from bpe.analysis.report_tables import report_tables
    from bpe.analysis.tables import printable

    columns = stdout_columns()
    for table in report_tables(report):
        title = printable(table.title)
        title = title if columns is None else clipped_in_the_middle(title, columns)
        click.echo(f"\n{title}\n\n{table.text(columns)}", nl=False)
