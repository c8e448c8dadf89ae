"""`bpe verify`: compare a tokenizer with its reference."""

from __future__ import annotations

from collections.abc import Sequence

import click

from bpe.commands.inputs import named_sources, open_tokenizer
from bpe.commands.options import (
    Command,
    corpus_text_option,
    examples,
    exclude_option,
    files_argument,
    pattern_option,
    progress_options,
    refuse_given,
    separator_option,
)
from bpe.commands.terminal import counted
from bpe.progress import current, phase


@click.command(cls=Command)
@click.argument("name", metavar="NAME|FILE")
@files_argument
@corpus_text_option
@pattern_option
@separator_option
@exclude_option
@progress_options()
@examples("bpe verify llama3", "bpe verify my.json corpora", "bpe verify code.json 'src/**/*.py'")
def verify(
    name: str,
    files: Sequence[str],
    texts: Sequence[str],
    pattern: str | None,
    separator: str | None,
    exclude: Sequence[str],
) -> None:
    """Check that a tokenizer gives the ids of its reference.

    Compares both on built-in hard cases and on your texts: files, directories, globs, - for stdin, or -c TEXT. The
    reference of a tokenizer.json is Hugging Face's tokenizers, which reads the file itself; that of a SentencePiece
    model is sentencepiece; that of vocab.json and merges.txt is transformers. Ranks, a GGUF, and any file under another
    --pattern are compared with tiktoken, or with tokenizers if tiktoken cannot express the vocabulary. Needs the extra
    `verify`, and sentencepiece the extra `subwords`.
    """
    from bpe.corpus import documents
    from bpe.locate import locate
    from bpe.verify import reference_of, reference_of_vocabulary, require_identical
    from bpe.verify import verify as verify_tokenizer

    sources = named_sources(files, texts)
    if not sources:
        refuse_given("without a text", "separator", "exclude")
    tokenizer = open_tokenizer(name, pattern)
    with phase("loading the reference"):
        reference = reference_of(tokenizer, locate(name)) if pattern is None else reference_of_vocabulary(tokenizer)
    read = documents([source for _, source in sources], separator=separator, exclude=exclude)
    report = verify_tokenizer(tokenizer, read, None, reference)
    remarks = []
    if report.not_utf8:
        remarks.append(f"{report.not_utf8:,} are not valid UTF-8 and were checked for the round trip only")
    if report.reference_failed:
        remarks.append(f"the reference itself failed on {report.reference_failed:,}")
    text = (
        f"{counted(report.documents, 'document')}, {counted(report.bytes, 'byte')}, {counted(report.tokens, 'token')}"
        f" compared with {report.reference}: {report.differing:,} differ" + "".join(f"; {remark}" for remark in remarks)
    )
    if report.differing and current().is_for_programs:
        require_identical(report)  # an error is the last event
    current().done(
        text,
        to_stdout=True,
        reference=report.reference,
        documents=report.documents,
        bytes=report.bytes,
        tokens=report.tokens,
        differing=report.differing,
        not_utf8=report.not_utf8,
        reference_failed=report.reference_failed,
    )
    require_identical(report)
