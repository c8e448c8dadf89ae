"""`bpe convert`: write a model in another format."""

from __future__ import annotations

from pathlib import Path

import click

from bpe.commands import next_steps
from bpe.commands.next_steps import name_next
from bpe.commands.options import Command, examples, progress_options, tell_defaults
from bpe.commands.terminal import amount
from bpe.errors import InputError
from bpe.progress import current, say
from model.commands.options import default_run, ignore_unknown_option

_OF_MODELS = ("*.safetensors", "*.pth", "*.bin", "*.gguf", "config.json", "params.json", "adapter_config.json")


@click.command(cls=Command, needed={"OUT (or --format NAME)": ("output", "format_name", "quantize")})
@click.argument("source", metavar="IN")
@click.argument("output", metavar="[OUT]", required=False)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["huggingface", "bpe-llama", "meta", "gguf"]),
    help="Format to write.  [default: gguf for OUT.gguf, else huggingface]",
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
    "--special",
    multiple=True,
    metavar="TOKEN",
    help="Special token to add to a tokenizer, which is IN without a model; repeatable. All ids stay.",
)
@click.option(
    "--quantize",
    type=click.Choice(["q8_0", "q6_k", "q4_k", "q4_1", "q4_0"]),
    help="llama.cpp type for the matrices, of 8.5, 6.6, 4.5, 5 or 4.5 bits per weight; GGUF only.",
)
@ignore_unknown_option
@progress_options()
@examples(
    "bpe convert Llama-3.2-1B/original llama-hf",
    "bpe convert runs/tales tales.gguf --dtype float16",
    "bpe convert smollm2.gguf smollm2 --dtype bfloat16",
    "bpe train recipes -o cook.json --base runs/tales --vocab-size 6000",
    "bpe convert runs/tales runs/cook --resize-vocab cook.json",
    "bpe convert Llama-3.2-1B llama.gguf --quantize q8_0",
    "bpe convert runs/tales/tokenizer.json turns.json --special '<|turn|>'",
)
def convert(
    source: str,
    output: str | None,
    format_name: str | None,
    dtype: str | None,
    tokenizer: str | None,
    special: tuple[str, ...],
    quantize: str | None,
    ignore_unknown: bool,
) -> None:
    """Convert a model and its tokenizer to another format.

    The formats are Meta's, Hugging Face's, GGUF, and this project's. OUT is a new directory, or a new file for GGUF; it
    appears when it is complete. Without OUT, its name is made of IN and --format or --quantize. Weights are converted
    one tensor at a time. Quantized weights are written in bfloat16 unless --dtype or --quantize is given.

    With --resize-vocab, each token keeps its rows of the embeddings and of the output head, even if its id changes. The
    row of a new token is the mean of the rows of the tokens that its text was encoded as before.

    A tokenizer file without a model is converted to a tokenizer.json, tiktoken ranks (.tiktoken or .model), a GGUF or
    a SentencePiece model (.model), by the suffix of OUT; --special adds special tokens to it. A model follows with
    --resize-vocab.
    """
    from bpe.formats import SUFFIXES

    if output is None:
        output = _default_output(source, format_name, quantize, special)
        tell_defaults(output=output)
    path = _tokenizer_alone(source)
    if path is not None and (special or Path(output).suffix in SUFFIXES):
        given = {"--format": format_name, "--dtype": dtype, "--resize-vocab": tokenizer, "--quantize": quantize}
        given["--ignore-unknown"] = "" if ignore_unknown else None
        for option, value in given.items():
            if value is not None:
                raise InputError(f"{source}: a tokenizer without a model; {option} has no effect on it")
        _convert_tokenizer(path, output, special)
        return
    from bpe.locate import locate
    from model.checkpoint import convert as convert_checkpoint
    from model.checkpoint import format_of, open_checkpoint
    from model.checkpoint.quantize import exceptions, kind_named

    if special:
        open_checkpoint(locate(source), ignore_unknown)  # if there is no model either, say so
        raise InputError(
            f"{source}: a model, whose embeddings have no row for a new token; add --special to its tokenizer alone"
            f" (bpe convert TOKENIZER new.json --special '{special[0]}'), and then give --resize-vocab new.json"
        )
    convert_checkpoint(source, output, format_name, dtype, None, tokenizer, quantize, ignore_unknown)
    config = open_checkpoint(output).config
    if config.vision is not None and format_of(locate(source)) == "meta":
        features = ", ".join(map(str, config.vision.feature_layers))
        say(
            f"{output}: the images' feature layers are {features}, where Meta's code counts each one higher: it takes"
            " what a layer reads, and the new form what a layer returns"
        )
    if quantize:
        for line in exceptions(config, kind_named(quantize)):
            say(line)
    size = sum(file.stat().st_size for file in [Path(output), *Path(output).glob("*")] if file.is_file())
    current().done(
        f"{output}: {format_of(output)}, {amount(size)}B", output=output, format=format_of(output), bytes=size
    )
    name_next(next_steps.generate(Path(output)), next_steps.chat(Path(output)))


def _default_output(source: str, format_name: str | None, quantize: str | None, special: tuple[str, ...]) -> str:
    """Return the name of IN with an ending for the format, in the working directory.

    Raises:
        click.UsageError: When special tokens are to be added.
    """
    if special:
        raise click.UsageError("missing OUT, the tokenizer file to write")
    name = Path(default_run(source)).name
    if quantize:
        return f"{name}-{quantize}.gguf"
    return f"{name}.gguf" if format_name == "gguf" else f"{name}-{format_name}"


def _tokenizer_alone(source: str) -> Path | None:
    """The tokenizer file that IN is or contains, unless there is a model."""
    from bpe.formats import find_tokenizer, open_tokenizer
    from bpe.formats.gguf_container import Container
    from bpe.locate import locate

    try:
        path = Path(locate(source))
        if path.is_dir():
            if any(file for pattern in _OF_MODELS for file in path.glob(pattern)):
                return None
            path = find_tokenizer(path)
        _, format, content = open_tokenizer(path)
        return None if format == "gguf" and Container(content).tensors else path
    except (InputError, OSError):
        return None  # no tokenizer; opening the model says what is wrong


def _convert_tokenizer(path: Path, output: str, special: tuple[str, ...]) -> None:
    from bpe import Tokenizer
    from bpe.formats import SUFFIXES
    from bpe.piece_vocabulary import PieceVocabulary

    if Path(output).exists():
        raise InputError(f"{output}: already exists; remove it, or give another name")
    tokenizer = Tokenizer.from_file(path).with_special_tokens(special)
    is_bytes = tokenizer.vocabulary.library is None and not isinstance(tokenizer.vocabulary, PieceVocabulary)
    if special and is_bytes and SUFFIXES.get(Path(output).suffix) == "tiktoken":
        raise InputError(f"{output}: ranks contain no special tokens; give a name that ends in .json")
    tokenizer.save(output)
    added = "".join(f", {token!r} is {tokenizer.special_tokens[token]}" for token in special)
    current().done(f"{output}: {tokenizer.n_vocab:,} tokens{added}", output=output, tokens=tokenizer.n_vocab)
    name_next(["show", "-t", Path(output), "-c", "Hello, world!"])
