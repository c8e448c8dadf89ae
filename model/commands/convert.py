"""`bpe convert`: write a model in another format."""

from __future__ import annotations

from pathlib import Path

import click

from bpe.commands.options import examples
from bpe.commands.terminal import Status, amount


@click.command()
@click.argument("source", metavar="IN")
@click.argument("output", metavar="OUT")
@click.option(
    "--format",
    "format_name",
    metavar="NAME",
    help="Format to write: huggingface, bpe-llama, meta or gguf.  [default: gguf for OUT.gguf, else huggingface]",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Data type of the weights.  [default: that of IN]",
)
@click.option(
    "--resize-vocab",
    "tokenizer",
    metavar="NAME|FILE",
    help="Tokenizer that extends the one of IN; embeddings and output head get rows for its new tokens.",
)
@click.option(
    "--quantize",
    type=click.Choice(["q8_0", "q6_k", "q4_k", "q4_1", "q4_0"]),
    help="llama.cpp type for the matrices, of 8.5, 6.6, 4.5, 5 or 4.5 bits per weight; GGUF only.",
)
@examples(
    "bpe convert Llama-3.2-1B/original llama-hf",
    "bpe convert runs/tales tales.gguf --dtype float16",
    "bpe convert smollm2.gguf smollm2 --dtype bfloat16",
    "bpe train recipes -o cook.json --base runs/tales --vocab-size 6000",
    "bpe convert runs/tales runs/cook --resize-vocab cook.json",
    "bpe convert Llama-3.2-1B llama.gguf --quantize q8_0",
)
def convert(
    source: str,
    output: str,
    format_name: str | None,
    dtype: str | None,
    tokenizer: str | None,
    quantize: str | None,
) -> None:
    """Convert a model and its tokenizer to another format.

    The formats are Meta's, Hugging Face's, GGUF, and this project's. OUT is a new directory, or a new file for GGUF; it
    appears when it is complete. Weights are converted one tensor at a time. Quantized weights are written in bfloat16
    unless --dtype or --quantize is given.

    With --resize-vocab, each token keeps its rows of the embeddings and of the output head, even if its id changes. The
    row of a new token is the mean of the rows of the tokens that its text was encoded as before.
    """
    import torch

    from model.checkpoint import convert as convert_checkpoint
    from model.checkpoint import format_of, open_checkpoint
    from model.checkpoint.quantize import exceptions, kind_named

    torch_dtype = getattr(torch, dtype) if dtype else None
    with Status() as status:

        def progress(done: int, total: int) -> None:
            status.show_share("converting", done / total, f"{done:,} of {total:,} tensors")

        convert_checkpoint(source, output, format_name, torch_dtype, progress, tokenizer, quantize)
    if quantize:
        for line in exceptions(open_checkpoint(output).config, kind_named(quantize)):
            click.echo(line, err=True)
    size = sum(file.stat().st_size for file in [Path(output), *Path(output).glob("*")] if file.is_file())
    click.echo(f"{output}: {format_of(output)}, {amount(size)}B", err=True)
