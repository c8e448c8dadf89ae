"""`bpe verify`: compare a tokenizer with its reference."""

from __future__ import annotations

from collections.abc import Sequence

import click

from bpe.commands.inputs import open_tokenizer
from bpe.commands.options import examples, exclude_option, pattern_option, separator_option
from bpe.commands.terminal import Status


@click.command()
@click.argument("name", metavar="NAME|FILE")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@pattern_option
@separator_option
@exclude_option
@examples("bpe verify llama3", "bpe verify my.json corpora", "bpe verify code.json 'src/**/*.py'")
def verify(name: str, texts: Sequence[str], pattern: str | None, separator: str | None, exclude: Sequence[str]) -> None:
    """Hold a tokenizer against its reference, on built-in hard cases and on your own text; needs the extra `verify`.

    The reference of a tokenizer.json is Hugging Face's tokenizers, which reads the file itself. That of ranks, and of
    any file under another --pattern, is tiktoken.
    """
    from bpe.corpus import documents
    from bpe.locate import locate
    from bpe.verify import Verification, reference_of, require_identical, tiktoken_reference
    from bpe.verify import verify as verify_tokenizer

    status = Status()

    def progress(report: Verification) -> None:
        status.show(f"comparing  {report.bytes / 1e6:,.1f} MB in {report.documents:,} documents")

    tokenizer = open_tokenizer(name, pattern)
    reference = reference_of(tokenizer, locate(name)) if pattern is None else tiktoken_reference(tokenizer)
    report = verify_tokenizer(tokenizer, documents(texts, separator=separator, exclude=exclude), progress, reference)
    status.done()
    apart = []
    if report.not_utf8:
        apart.append(f"{report.not_utf8:,} were not UTF-8 and were checked for the round trip only")
    if report.reference_failed:
        apart.append(f"on {report.reference_failed:,} the reference itself failed")
    click.echo(
        f"{report.documents:,} documents, {report.bytes:,} bytes, {report.tokens:,} tokens compared with"
        f" {report.reference}: {report.differing:,} differ" + "".join(f"; {remark}" for remark in apart)
    )
    require_identical(report)
