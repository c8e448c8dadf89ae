"""The command line: parse, call, print. What a command does stands in ``bpe`` and ``model``, imported where needed."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bpe import Tokenizer
    from bpe.shards import Corpus
    from bpe.shards import Progress as ShardsProgress
    from bpe.training.trainer import Progress, Step, Trained
    from model.generation.conversation import Conversation

FORMATS = {"text": None, "json": None, "u16": "<u2", "u32": "<u4"}


class Commands(click.Group):
    """A group whose failures are one line on stderr: status 2 for wrong usage, 1 for anything else."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        try:
            result = super().main(*args, **kwargs)
            sys.stdout.flush()
        except click.exceptions.Exit as exit:
            sys.exit(exit.exit_code)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            if os.environ.get("RANK", "0") != "0":  # torchrun interrupts all of its processes, and one tells
                sys.exit(130)
            _fail("interrupted", 130)
        except BrokenPipeError:  # the reader of a pipe went away, as `head` does
            _drop_unwritable_output()
            sys.exit(1)
        except Exception as error:
            if os.environ.get("BPE_DEBUG"):
                raise
            _drop_unwritable_output()
            _fail(_in_one_line(error), 1)
        sys.exit(result if isinstance(result, int) else 0)


def _drop_unwritable_output() -> None:
    """What stdout did not take is not tried again when the interpreter ends, which would say so in lines of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _in_one_line(error: Exception) -> str:
    from bpe.errors import InputError

    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        remedy = "; free some space and run it again" if error.errno == errno.ENOSPC else ""
        return f"{error.filename}: {error.strerror}{remedy}" if error.filename else f"{error.strerror or error}{remedy}"
    if isinstance(error, MemoryError) or _is_torch_out_of_memory(error):
        return "not enough memory; take less at once (shorter texts, fewer of them), or a model with smaller numbers"
    if isinstance(error, ModuleNotFoundError) and error.name == "matplotlib":
        return "plots need matplotlib: pip install 'bpe-llama[report]'"
    if isinstance(error, ModuleNotFoundError) and error.name in ("torch", "safetensors", "jinja2"):
        return f"this command needs {error.name}: pip install 'bpe-llama[model]'"
    if isinstance(error, ModuleNotFoundError) and error.name in ("tiktoken", "tokenizers"):
        return f"this command needs {error.name}: pip install 'bpe-llama[verify]'"
    return f"{type(error).__name__}: {' '.join(str(error).split())} (run bpe --debug ... for the traceback)"


def _is_torch_out_of_memory(error: Exception) -> bool:
    """PyTorch has an exception for accelerators; on the CPU only the text tells."""
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "not enough memory" in str(error))
    )


def _fail(message: str, status: int) -> None:
    click.echo(f"bpe: {message}", err=True)
    sys.exit(status)


class Status:
    """One line on stderr that is drawn over and over, if stderr is a terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._next = 0.0

    def show(self, text: str) -> None:
        now = time.monotonic()
        if self._shown and now >= self._next:
            self._next = now + 0.1
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)

    def done(self, text: str = "") -> None:
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)
        if text:
            click.echo(text, err=True)


def _bar(share: float, width: int = 24) -> str:
    return "█" * round(share * width) + "░" * (width - round(share * width))


def examples(*lines: str) -> Callable[[Any], Any]:
    """Adds a block of examples to a command's help, set as written."""

    def add(function: Any) -> Any:
        block = "\n".join(f"  {line}" for line in lines)
        function.__doc__ = f"{function.__doc__.rstrip()}\n\n    \b\n    Examples:\n    " + block.replace("\n", "\n    ")
        return function

    return add


def _set_debug(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        os.environ["BPE_DEBUG"] = "1"


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="bpe-llama", message="%(version)s")
@click.option("--debug", is_flag=True, expose_value=False, callback=_set_debug, help="Show the traceback of an error.")
def cli() -> None:
    """From raw text to a talking Llama: train a vocabulary, encode and decode with it, train a model, let it write.

    stdout carries data only, so that commands can be piped; progress and remarks go to stderr.

    Shell completion: eval "$(_BPE_COMPLETE=bash_source bpe)", and zsh_source or fish_source likewise.
    """


tokenizer_option = click.option(
    "-t",
    "--tokenizer",
    "name",
    metavar="NAME|FILE",
    envvar="BPE_TOKENIZER",
    show_envvar=True,
    default="llama3",
    help="A tokenizer file, a model directory, or a known name.",
)
pattern_option = click.option(
    "--pattern",
    metavar="NAME|REGEX",
    help="Split pattern, for a file of ranks that carries none.  [default: the file's]",
)
exclude_option = click.option(
    "--exclude", multiple=True, metavar="GLOB", help="Leave out files and directories of this name; repeat."
)
separator_option = click.option(
    "--separator", metavar="STRING", help="Where this stands in a file, a new document begins."
)
field_option = click.option(
    "--field", default="text", metavar="NAME", help="Key of the text in .jsonl, column in .parquet."
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="What to compute in.  [default: what the weights are in]",
)
device_option = click.option("--device", default="cpu", metavar="NAME", help="cpu, cuda, mps, ...")
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="How many processors to use.  [default: all]"
)
text_option = click.option("-c", "--text", metavar="TEXT", help="Take this text instead of files.")
files_argument = click.argument("files", nargs=-1, metavar="[FILE]...")
special_option = click.option(
    "--allow-special", is_flag=True, help="Let special tokens in the text become their ids; otherwise they are text."
)
ids_format_option = click.option(
    "--format",
    "ids_format",
    type=click.Choice(list(FORMATS)),
    default="text",
    help="How ids are written: numbers with spaces, a JSON list, or little-endian binary of 16 or 32 bits.",
)


def _tokenizer(name: str, pattern: str | None = None) -> Tokenizer:
    from bpe import Tokenizer
    from bpe.locate import locate

    return Tokenizer.from_file(locate(name), pattern)


def _tokenizer_or_ranks(name: str, pattern: str | None) -> Tokenizer:
    """The tokenizer with its own pattern; with the one that is given where it has none."""
    from bpe import InputError

    try:
        return _tokenizer(name)
    except InputError:
        if pattern is None:
            raise
        return _tokenizer(name, pattern)


def _inputs(files: Sequence[str], text: str | None) -> Iterator[tuple[str, bytes]]:
    """The name and content of each input; stdin if there is none."""
    if text is not None:
        if files:
            raise click.UsageError("give either files or --text, not both")
        yield "text", os.fsencode(text)
        return
    for file in files or ["-"]:
        yield ("stdin", sys.stdin.buffer.read()) if file == "-" else (file, Path(file).read_bytes())


def _size(text: str) -> int:
    """Bytes, such as 2G or 500MB."""
    number = text.strip().upper().removesuffix("B")
    power = "KMGT".find(number[-1:]) + 1 if number[-1:].isalpha() else 0
    try:
        return int(float(number[:-1] if power else number) * 1000**power)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is no size; write 2G, 500M or a number of bytes") from None


@cli.command()
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
@click.option("--max-memory", type=_size, metavar="SIZE", help="Of the process, such as 2G; the rest is put on disk.")
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

            texts = ((text, _watched([text], None, options["exclude"])) for text in held_out)
            _print_report(write_training_report(report, result.tokenizer, result.uses, texts))

    try:
        train_tokenizer(
            corpus,
            base=_tokenizer_or_ranks(base, options["pattern"]) if base else None,
            special_tokens=() if no_special else special or None,
            required_tokens=_lines(require) if require else (),
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


def _lines(file: str) -> list[str]:
    from bpe import InputError

    try:
        lines = Path(file).read_bytes().decode().split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: byte {error.start} is not UTF-8") from error
    return [line.removesuffix("\r") for line in lines if line.removesuffix("\r")]


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

    def progress(self, so_far: Progress) -> None:
        seconds = time.monotonic() - self._start
        if so_far.phase == "merge":
            self._status.show(f"merging   {_bar(so_far.merges / (so_far.wanted or 1))} {so_far.merges:,} merges")
            return
        rate = f"{so_far.size / 1e6:,.1f} MB in {so_far.documents:,} documents, {so_far.size / 1e6 / seconds:,.0f} MB/s"
        if so_far.total and so_far.read:
            left = seconds * (so_far.total - so_far.read) / so_far.read
            rate = f"{_bar(so_far.read / so_far.total)} {rate}, {left:,.0f} s left"
        self._status.show(f"counting  {rate}")

    def step(self, step: Step) -> None:
        if not self._headed:
            click.echo(f"{'id':>7}  {'count':>12}  {'pair':<24}  {'token':<16}  shortens")
        self._headed = True
        before, after = step.word, [*step.word]
        after[step.place : step.place + 2] = [step.left + step.right]
        pair = f"{_readable(step.left)} + {_readable(step.right)}"
        click.echo(
            f"{step.rank:>7}  {step.times:>12,.10g}  {pair:<24}  {_readable(step.left + step.right):<16}"
            f"  {' '.join(map(_readable, before))} -> {' '.join(map(_readable, after))}"
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


def _readable(token: bytes) -> str:
    try:
        return repr(token.decode())
    except UnicodeDecodeError:
        return repr(token)


@cli.command()
@files_argument
@text_option
@tokenizer_option
@pattern_option
@special_option
@ids_format_option
@examples(
    "bpe encode -c 'Hello world'",
    "bpe encode README.md --format u32 > readme.bin",
    "bpe encode photo.jpg | bpe decode | cmp - photo.jpg",
)
def encode(
    files: Sequence[str], text: str | None, name: str, pattern: str | None, allow_special: bool, ids_format: str
) -> None:
    """Turn text into ids. Any bytes are taken, and `bpe decode` gives them back."""
    tokenizer = _tokenizer(name, pattern)
    if ids_format == "u16" and tokenizer.n_vocab > 1 << 16:
        raise click.UsageError(f"ids go up to {tokenizer.n_vocab - 1:,}, which 16 bits do not hold; use --format u32")
    for _, content in _inputs(files, text):
        ids = tokenizer.encode(content, allowed_special="all" if allow_special else set(), disallowed_special=())
        _write_ids(ids, ids_format)


def _write_ids(ids: Sequence[int], ids_format: str) -> None:
    if ids_format == "text":
        click.echo(" ".join(map(str, ids)))
    elif ids_format == "json":
        click.echo("[" + ", ".join(map(str, ids)) + "]")
    else:
        import numpy as np

        sys.stdout.buffer.write(np.array(ids, dtype=FORMATS[ids_format]).tobytes())


@cli.command()
@files_argument
@tokenizer_option
@pattern_option
@ids_format_option
@examples(
    "bpe encode -c 'Hello world' | bpe decode",
    "echo '[9906, 1917]' | bpe decode --format json",
    "bpe decode --format u32 readme.bin",
)
def decode(files: Sequence[str], name: str, pattern: str | None, ids_format: str) -> None:
    """Turn ids into the bytes they stand for."""
    from bpe import InputError

    tokenizer = _tokenizer(name, pattern)
    for file, content in _inputs(files, None):
        try:
            decoded = tokenizer.decode_bytes(_read_ids(content, ids_format))
        except KeyError as error:
            raise InputError(
                f"{file}: {error.args[0]}; the vocabulary has {tokenizer.n_vocab:,} ids; was it encoded with another?"
            ) from error
        except (ValueError, OverflowError, TypeError) as error:
            raise InputError(f"{file}: {error}") from error
        sys.stdout.buffer.write(decoded)


def _read_ids(content: bytes, ids_format: str) -> Any:
    if ids_format == "text":
        try:
            return [int(word) for word in content.split()]
        except ValueError as error:
            word = next(word for word in content.split() if not word.isdigit())
            raise ValueError(f"{word[:40]!r} is not an id; give --format for JSON or binary") from error
    if ids_format == "json":
        import json

        ids = []
        for line in content.splitlines():
            row = json.loads(line) if line.strip() else []
            if not isinstance(row, list):
                raise ValueError("not a JSON list of ids on each line")
            ids += row
        return ids
    import numpy as np

    dtype = np.dtype(FORMATS[ids_format])
    if len(content) % dtype.itemsize:
        raise ValueError(f"{len(content)} bytes are not a whole number of ids of {8 * dtype.itemsize} bits")
    return np.frombuffer(content, dtype=dtype).astype(np.uint32)


@cli.command()
@files_argument
@text_option
@tokenizer_option
@pattern_option
@examples("bpe count README.md LICENSE", "cat *.txt | bpe count", "bpe count -t my.json corpora/prose.txt")
def count(files: Sequence[str], text: str | None, name: str, pattern: str | None) -> None:
    """Count tokens: a line for each file with tokens, bytes, bytes per token, and the name."""
    tokenizer = _tokenizer(name, pattern)
    rows = [(tokenizer.count(content), len(content), file) for file, content in _inputs(files, text)]
    if len(rows) > 1:
        rows.append((sum(row[0] for row in rows), sum(row[1] for row in rows), "total"))
    for tokens, size, file in rows:
        click.echo(f"{tokens:>10} {size:>10} {size / max(tokens, 1):>6.2f}  {file}")


# Backgrounds that neighbouring tokens take in turn, from the 256-colour palette, with black text.
COLOURS = (152, 223, 182, 225, 189)


@cli.command()
@files_argument
@text_option
@tokenizer_option
@pattern_option
@special_option
@click.option("--ids", "with_ids", is_flag=True, help="A line for each token: its id and its bytes.")
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Colour, or | between.")
@examples('bpe show -c "It\'s 12345 tokens, naïve café"', "bpe show --ids -c 'Grüße' -t my.json")
def show(
    files: Sequence[str],
    text: str | None,
    name: str,
    pattern: str | None,
    allow_special: bool,
    with_ids: bool,
    color: str,
) -> None:
    """Print a text with its tokens marked. Bytes of a character that is cut between tokens are shown as <C3>."""
    tokenizer = _tokenizer(name, pattern)
    coloured = _in_colour(color)
    for _, content in _inputs(files, text):
        ids = tokenizer.encode(content, allowed_special="all" if allow_special else set(), disallowed_special=())
        if with_ids:
            for id in ids:
                click.echo(f"{id:>7}  {_visible(tokenizer.decode_single_token_bytes(id), newline='⏎')}")
            continue
        pieces = [_visible(tokenizer.decode_single_token_bytes(id), newline="⏎\n") for id in ids]
        if coloured:
            line = "".join(_painted(piece, COLOURS[i % len(COLOURS)]) for i, piece in enumerate(pieces))
            click.echo(line, color=True)
        else:
            click.echo("|".join(pieces))
        words = f"{len(ids):,} tokens, {len(content):,} bytes"
        click.echo(f"{words}, {len(content) / max(len(ids), 1):.2f} bytes per token", err=True)


def _in_colour(color: str) -> bool:
    return color == "always" or (color == "auto" and sys.stdout.isatty() and "NO_COLOR" not in os.environ)


def _painted(piece: str, colour: int) -> str:
    """The piece on a coloured ground that ends before a line break, so that it does not run to the edge."""
    lines = piece.split("\n")
    return "\n".join(f"\x1b[30;48;5;{colour}m{line}\x1b[0m" if line else "" for line in lines)


def _visible(token: bytes, newline: str) -> str:
    """The token as text: broken bytes and control characters by their codes, a line break as `newline`."""
    shown = []
    for character in token.decode("utf-8", "surrogateescape"):
        if character == "\n":
            shown.append(newline)
        elif "\udc80" <= character <= "\udcff":
            shown.append(f"<{ord(character) - 0xDC00:02X}>")
        elif character.isprintable():
            shown.append(character)
        else:
            shown.append(f"<U+{ord(character):04X}>")
    return "".join(shown)


def _shortened(text: str, width: int = 24) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


@cli.command()
@click.argument("name", metavar="NAME|FILE|DIRECTORY")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@pattern_option
@separator_option
@exclude_option
@click.option("--json", "as_json", is_flag=True, help="Print a tokenizer's numbers as JSON.")
@click.option("--report", metavar="DIR", help="Write a tokenizer's numbers, tables and plots into this directory.")
@click.option(
    "--batch", type=click.IntRange(min=1), default=1, metavar="N", help="Sequences that a model's KV cache is for."
)
@click.option(
    "--length", type=click.IntRange(min=1), metavar="N", help="Tokens in each of them.  [default: the model's context]"
)
@examples(
    "bpe info llama3",
    "bpe info my.json my.txt 'more/*.txt'",
    "bpe info my.json texts --report findings",
    "bpe info runs/tales",
    "bpe info llama3.2-1b",
    "bpe info llama3.1-70b --batch 8 --length 4096",
)
def info(
    name: str,
    texts: Sequence[str],
    pattern: str | None,
    separator: str | None,
    exclude: Sequence[str],
    as_json: bool,
    report: str | None,
    batch: int,
    length: int | None,
) -> None:
    """Describe a tokenizer, a model in any of its formats, token shards, or a model preset.

    Of a model it tells, without reading the weights, its parameters by part, what they take in each dtype, what the
    KV cache takes, and the arithmetic for a token.

    With texts (files, directories, globs, .jsonl, .gz, .xz, or - for stdin) it tells how a tokenizer does on each: how
    much of the text a token stands for as the vocabulary grows, tokens per word, which tokens are used. Special tokens
    in a text are text. What the columns mean stands in the report.md that --report writes; plots need the extra
    `report`.
    """
    from bpe.locate import SOURCES, locate

    path = locate(name) if name in SOURCES else Path(name)
    measured = bool(texts or as_json or report)
    if not measured and (path / "index.json").is_file():
        _print_rows(_shards_info(path))
    elif not measured and _is_model(path):
        _print_rows(_model_info(path, batch, length))
    elif not measured and not path.exists() and (rows := _preset_info(name, batch, length)):
        _print_rows(rows)
    else:
        tokenizer = _tokenizer(name, pattern)
        if not as_json:
            _print_rows(_tokenizer_info(tokenizer))
        if measured:
            _report(tokenizer, texts, separator, exclude, as_json, report)


def _report(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    separator: str | None,
    exclude: Sequence[str],
    as_json: bool,
    directory: str | None,
) -> None:
    """Print what the tokenizer does on the texts, and write it into the directory."""
    from bpe.analysis.report import check_directory, report_of, write_report
    from bpe.analysis.usage import usage_of

    if directory is not None:
        check_directory(directory)
    found = report_of(tokenizer, (usage_of(tokenizer, _watched([text], separator, exclude), text) for text in texts))
    if as_json:
        import json

        click.echo(json.dumps(found, indent=2))
    else:
        _print_report(found)
    if directory is not None:
        files = write_report(found, directory)
        click.echo(f"{directory}: {', '.join(file.name for file in files)}", err=True)


def _print_report(report: Mapping[str, Any]) -> None:
    from bpe.analysis.tables import printable, tables

    for table in tables(report):
        click.echo(f"\n{printable(table.title)}\n\n{table.text()}", nl=False)


def _watched(
    sources: Sequence[str], separator: str | None, exclude: Sequence[str], field: str = "text"
) -> Iterator[bytes]:
    """The documents of the sources; how far they are read is shown meanwhile."""
    from bpe.corpus import documents

    status = Status()
    size = 0
    for number, document in enumerate(documents(sources, separator=separator, field=field, exclude=exclude), 1):
        size += len(document)
        status.show(f"encoding  {size / 1e6:,.1f} MB in {number:,} documents")
        yield document
    status.done()


def _print_rows(rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        click.echo(f"{label:<{width}}  {value}")


def _tokenizer_info(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    pattern = tokenizer.pattern
    if pattern.scanner is None:
        split = f"{pattern.text}  (warning: no scanner for this pattern; it runs by regex, the slow path)"
    else:
        split = f"{pattern.name}  {pattern.text}"
    ranks = tokenizer.mergeable_ranks
    specials = sorted(tokenizer.special_tokens, key=lambda token: tokenizer.special_tokens[token])
    longest = sorted(ranks, key=len, reverse=True)[:5]
    unknown = tokenizer.unknown_bytes.hex(" ")
    return [
        ("tokenizer", tokenizer.name),
        ("vocabulary", f"{len(ranks) + len(specials):,} tokens, ids up to {tokenizer.max_token_value:,}"),
        ("merges", f"{tokenizer._core.pair_count:,}"),
        ("pattern", split),
        (
            "special tokens",
            f"{len(specials):,}"
            + (f": {', '.join(specials[:4])}" if specials else "")
            + (", ..." if len(specials) > 4 else ""),
        ),
        *([("unknown bytes", f"{unknown} (left out)")] if unknown else []),
        ("mean token length", f"{sum(map(len, ranks)) / len(ranks):.2f} bytes"),
        (
            "longest tokens",
            ", ".join(f"{_shortened(_visible(token, newline='⏎'))!r} ({len(token)})" for token in longest),
        ),
    ]


@cli.command()
@click.argument("corpus", nargs=-1, metavar="CORPUS...")
@tokenizer_option
@click.option("-o", "--output", metavar="DIR", help="The directory to write the shards into.")
@click.option("--verify", metavar="DIR", help="Compare shards with their sources, which may be named anew.")
@click.option("--hashes-only", is_flag=True, help="With --verify: check hashes, and read no sources.")
@click.option("--export", metavar="DIR", help="Write shards in another format into OUTPUT.")
@click.option("--format", "export_format", default="parquet", metavar="NAME", help="Of --export: parquet, arrow, npy.")
@click.option("--held-out", type=float, default=0.05, metavar="SHARE", help="Share of documents kept from training.")
@click.option("--shard-tokens", type=_size, default="64M", metavar="N", help="Tokens in a shard at most.")
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
        from bpe.shards import Corpus

        _write_shards(Corpus(corpus, field, separator, errors, exclude), name, str(output), options)


def _write_shards(sources: Corpus, name: str, output: str, options: Mapping[str, Any]) -> None:
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


parallel_option = click.option(
    "--parallel",
    type=click.Choice(["ddp", "fsdp"]),
    help="Under torchrun: whether each process holds the whole model, or a share.  [default: ddp]",
)
tensor_parallel_option = click.option(
    "--tensor-parallel", type=int, default=1, metavar="N", help="Under torchrun: N neighbours share each matrix."
)


@cli.command()
@click.option("--data", metavar="DIR", help="Token shards, from `bpe shards`.  [default: those of the run]")
@click.option("-o", "--output", required=True, metavar="DIR", help="The run's directory; an interrupted run goes on.")
@click.option("--restart", is_flag=True, help="Throw an earlier run in this directory away.")
# How large, and how long.
@click.option("--config", default="micro", metavar="NAME|FILE", help="The model: a preset, params.json or config.json.")
@click.option("--minutes", type=float, metavar="N", help="Train for this long.  [default: 3, unless --steps is given]")
@click.option("--steps", type=int, metavar="N", help="Train for so many steps instead.")
@click.option("--seed", type=int, default=0, metavar="N", help="Of the weights and of the order of the data.")
# What a step reads.
@click.option("--batch-tokens", type=int, default=1024, metavar="N", help="Tokens in a step.")
@click.option("--micro-batch-tokens", type=int, metavar="N", help="Tokens read at a time.  [default: a whole step's]")
@click.option("--sequence-length", type=int, default=256, metavar="N", help="Tokens in a sequence.")
@click.option("--across-documents", is_flag=True, help="Let tokens see earlier documents of their sequence.")
# How it learns.
@click.option("--learning-rate", type=float, default=2e-3, metavar="X", help="The highest; see TrainConfig.")
@click.option(
    "--schedule", type=click.Choice(["cosine", "wsd"]), default="cosine", help="wsd: stay, and fall at the end."
)
@click.option("--warmup", type=float, default=0.03, metavar="SHARE", help="Of the budget, for the rate to rise.")
@click.option("--decay", type=float, default=0.2, metavar="SHARE", help="Of the budget, for wsd to fall.")
@click.option("--weight-decay", type=float, default=1.0, metavar="X", help="Of the matrices.")
@click.option("--gradient-clip", type=float, default=1.0, metavar="X", help="The highest norm of the gradients.")
@click.option("--spike", type=float, default=10.0, metavar="X", help="Skip a batch so many spreads above the others.")
@click.option("--max-skipped", type=int, default=3, metavar="N", help="Give up after so many.")
# What it tells and keeps.
@click.option("--eval-every", type=int, default=200, metavar="N", help="Steps from one evaluation to the next.")
@click.option("--eval-tokens", type=int, default=1 << 17, metavar="N", help="Of the held-out text, use so much.")
@click.option("--sample-tokens", type=int, default=48, metavar="N", help="Show so much of its writing at each.")
@click.option("--checkpoint-every", type=float, default=60.0, metavar="SECONDS", help="Save so often.")
@click.option("--keep-checkpoints", type=int, default=2, metavar="N", help="Keep so many, the newest.")
@click.option("--tensorboard", is_flag=True, help="Write curves for TensorBoard, too.")
@click.option("--peak-flops", type=float, metavar="X", help="What MFU is a share of.  [default: measured]")
# How it computes.
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    help="Of the matrix products; auto: bfloat16, where the processor has instructions for it.",
)
@device_option
@click.option("--checkpoint-activations", is_flag=True, help="Keep less in memory, and compute it again.")
@click.option("--compile", is_flag=True, help="Let torch.compile make the kernels.")
@parallel_option
@tensor_parallel_option
@examples(
    "bpe pretrain --data data -o runs/tales --minutes 3",
    "bpe pretrain -o runs/tales                # goes on with an interrupted run",
    "bpe pretrain --data data -o runs/big --config mini --steps 20000 --schedule wsd --device cuda --compile",
    "bpe pretrain --data data -o runs/large --batch-tokens 65536 --micro-batch-tokens 4096 --checkpoint-activations",
    "torchrun --nproc-per-node 8 -m bpe.cli pretrain --data data -o runs/big --device cuda --parallel fsdp",
)
def pretrain(
    data: str | None,
    output: str,
    config: str,
    restart: bool,
    parallel: Any,
    tensor_parallel: int,
    **settings: Any,
) -> None:
    """Train a Llama from scratch on token shards.

    The run's directory becomes a model directory, with metrics.jsonl, loss.png and numbered checkpoints. A run that was
    interrupted, or killed, goes on when the command is given again, or with -o alone, and arrives at the same weights.
    """
    from bpe.shards import Shards
    from model.training.parallel import Parallel
    from model.training.pretraining import pretrain as run_training
    from model.training.pretraining import settings_of
    from model.training.settings import TrainConfig

    shape = None
    source = click.get_current_context().get_parameter_source
    given = {name for name in ("config", *settings) if source(name) is click.core.ParameterSource.COMMANDLINE}
    if data is None:
        directory, shape, kept = settings_of(output)
        data, settings = str(directory), {**settings, **kept, **{name: settings[name] for name in given - {"config"}}}
    elif settings["steps"] is None and settings["minutes"] is None:
        settings["minutes"] = 3
    with Parallel(parallel, tensor_parallel, settings["device"]) as processes:
        if "config" in given or shape is None:
            shape = _model_config(config, Shards(data).n_vocab)
        train = TrainConfig(**settings)
        result = run_training(data, output, shape, train, restart=restart, parallel=processes)
    if not processes.is_main:
        return
    held_out = f", {result.bits_per_byte:.3f} bits per byte held out" if result.bits_per_byte is not None else ""
    click.echo(
        f"{output}: {shape.n_parameters / 1e6:.1f} million parameters, {result.steps:,} steps{held_out}", err=True
    )


@cli.command()
@click.argument("model", metavar="MODEL")
@click.argument("data", nargs=-1, required=True, metavar="DIALOGS...")
@click.option("-o", "--output", required=True, metavar="DIR", help="The run's directory; an interrupted run goes on.")
@click.option("--lora", "rank", type=int, metavar="RANK", help="Train matrices of this rank beside the model's own.")
@click.option("--lora-alpha", type=float, metavar="X", help="They count X / RANK.  [default: twice the rank]")
@click.option(
    "--lora-target",
    "targets",
    multiple=True,
    metavar="NAME",
    help="Of wq, wk, wv, wo, w1, w2, w3, which matrices; repeat.  [default: all]",
)
@click.option("--lora-dropout", type=float, default=0.0, metavar="X", help="Share of inputs left out in training.")
@click.option("--merge", is_flag=True, help="Leave a model with what LoRA learned in it, not the adapter alone.")
@click.option("--preferences", is_flag=True, help="Learn from which of two answers is better (DPO).")
@click.option("--beta", type=float, default=0.1, metavar="X", help="Of DPO: how dear it is to become another model.")
@click.option(
    "--held-out",
    default="0.1",
    metavar="SHARE|FILE",
    help="What is measured on and not trained on: a share of the dialogs, or a file of others.",
)
@click.option("--epochs", type=float, default=3.0, metavar="N", help="Read each dialog so often.")
@click.option("--steps", type=int, metavar="N", help="Train for so many steps instead.")
@click.option("--minutes", type=float, metavar="N", help="Train for this long instead.")
@click.option(
    "--sequence-length",
    type=int,
    metavar="N",
    help="Tokens of a dialog that are read, and of a row.  [default: the context, 1,024 at the most]",
)
@click.option("--batch-tokens", type=int, metavar="N", help="Tokens in the rows of a step.  [default: one row]")
@click.option(
    "--micro-batch-tokens",
    type=int,
    metavar="N",
    help="Tokens that the model reads at a time.  [default: all of a step]",
)
@click.option(
    "--learning-rate",
    type=float,
    metavar="X",
    help="The highest.  [default: 2e-5, with --lora 10 times that, with --preferences a tenth]",
)
@click.option("--weight-decay", type=float, default=0.0, metavar="X", help="Of the matrices.")
@click.option("--padded", is_flag=True, help="A row for each dialog, not several in one; the result is the same.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", help="Of the matrix products.")
@device_option
@threads_option
@click.option("--eval-every", type=int, default=100, metavar="N", help="Steps from one evaluation to the next.")
@click.option("--seed", type=int, default=0, metavar="N", help="Of what is held out, of the order, of LoRA's matrices.")
@click.option("--restart", is_flag=True, help="Throw an earlier run in this directory away.")
@parallel_option
@tensor_parallel_option
@examples(
    "bpe finetune smollm2 dialogs.jsonl -o runs/orders --lora 16",
    "bpe finetune runs/tales chats/*.jsonl.gz -o runs/assistant --held-out 0.05 --epochs 2",
    "bpe finetune runs/assistant pairs.jsonl -o runs/polite --preferences --lora 16 --merge",
    "torchrun --nproc-per-node 2 -m bpe.cli finetune smollm2 dialogs.jsonl -o runs/orders --device cuda",
    "bpe chat runs/orders",
)
def finetune(
    model: str,
    data: Sequence[str],
    output: str,
    rank: int | None,
    lora_alpha: float | None,
    targets: Sequence[str],
    lora_dropout: float,
    merge: bool,
    preferences: bool,
    beta: float,
    held_out: str,
    epochs: float,
    padded: bool,
    threads: int | None,
    restart: bool,
    parallel: Any,
    tensor_parallel: int,
    **settings: Any,
) -> None:
    """Train a model on dialogs, to say what the assistant says in them.

    Each line of DIALOGS is {"messages": [{"role": "user", "content": "..."}, ...]}; roles are system, user, assistant
    and tool. They are written in the model's own chat format. Learned is what the assistant says and where its turn
    ends, no more. A dialog that is longer than --sequence-length is cut at its end, and that is said.

    With --preferences, a line is {"prompt": ..., "chosen": ..., "rejected": ...}, messages or texts, or two whole
    dialogs under the latter two.

    DIR is a model directory; with --lora an adapter as PEFT has it, which names MODEL. Both are models for all other
    commands.
    """
    import torch

    from model.lora import TARGETS, LoraConfig
    from model.training.examples import FinetuneConfig
    from model.training.finetuning import finetune as run_finetuning
    from model.training.parallel import Parallel

    if rank is None and (lora_alpha is not None or targets or lora_dropout):
        raise click.UsageError("--lora-alpha, --lora-target and --lora-dropout are for --lora RANK")
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        share: float | list[str] = float(held_out)
    except ValueError:
        share = [held_out]
    given = {name: value for name, value in settings.items() if value is not None}
    with Parallel(parallel, tensor_parallel, settings["device"]) as processes:
        config = FinetuneConfig(
            lora=None if rank is None else LoraConfig(rank, lora_alpha, targets or TARGETS, lora_dropout),
            merge=merge,
            beta=beta if preferences else None,
            packed=not padded,
            held_out=share,
            epochs=epochs,
        )
        run_finetuning(model, data, output, config, restart=restart, parallel=processes, **given)


def _model_config(name: str, vocab_size: int) -> Any:
    """The preset, the params.json or the config.json, with the vocabulary of the data."""
    from bpe import InputError
    from model.config import ModelConfig

    path = Path(name)
    if path.suffix != ".json":
        return ModelConfig.preset(name, vocab_size=vocab_size)
    import json

    try:
        params = json.loads(path.read_text("utf-8"))
        if not isinstance(params, dict):
            raise ValueError("not a JSON object")
        if "hidden_size" in params:
            from model.checkpoint.huggingface import config_of

            return config_of({**params, "vocab_size": vocab_size})
        return ModelConfig.from_params({**params, "vocab_size": vocab_size})
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


backend_option = click.option(
    "--backend",
    type=click.Choice(["auto", "native", "torch"]),
    default="auto",
    help="native: from the weights as they are stored, on the CPU; auto: where it can.",
)


def _load(name: str | Path, dtype: str | None, device: str, backend: Any, threads: int | None) -> tuple[Any, Any]:
    import torch

    from model import load

    if threads is not None:
        torch.set_num_threads(threads)
    return load(name, None if dtype is None else getattr(torch, dtype), device, backend, packed=True)


@cli.command()
@click.argument("model", metavar="MODEL")
@click.option("-p", "--prompt", "prompts", multiple=True, metavar="TEXT", help="What the text begins with; repeat.")
@click.option("--file", metavar="FILE", help="The prompt is what this file holds.  [default: stdin]")
@click.option("--batch", metavar="FILE", help="Each line of this file is a prompt; all are gone on with at once.")
@click.option("--samples", type=click.IntRange(min=1), default=1, metavar="N", help="Texts for each prompt.")
@click.option("--max-tokens", type=int, default=256, metavar="N", help="Write at most so many tokens.")
@click.option("--temperature", type=float, default=0.8, metavar="X", help="0 always takes the likeliest token.")
@click.option("--top-k", type=int, metavar="N", help="Choose among the N likeliest only.  [default: no limit]")
@click.option("--top-p", type=float, default=0.95, metavar="X", help="Choose among the likeliest that sum to this.")
@click.option("--min-p", type=float, metavar="X", help="Leave out what is less likely than X times the likeliest.")
@click.option(
    "--repetition-penalty", type=float, default=1.0, metavar="X", help="Above 1: tokens that were there get rarer."
)
@click.option(
    "--frequency-penalty", type=float, default=0.0, metavar="X", help="Taken off a logit for each time it was written."
)
@click.option(
    "--logit-bias", multiple=True, metavar="ID=X", help="Added to the logit of a token; -inf bans it; repeat."
)
@click.option("--stop", multiple=True, metavar="TEXT", help="Stop before this text; repeat.")
@click.option(
    "--seed", type=int, metavar="N", help="The same seed gives the same text.  [default: a new one each time]"
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each text: ids, finish, times, ...")
@click.option(
    "--logprobs", type=int, metavar="N", help="With --json: log-probabilities, also of the N likeliest tokens."
)
@dtype_option
@device_option
@backend_option
@threads_option
@examples(
    "bpe generate runs/tales -p 'Once upon a time'",
    "echo 'One day, a fox' | bpe generate runs/tales --temperature 0 --max-tokens 100",
    "bpe generate smollm2 -p 'The sea is' --samples 4 --stop . --json --logprobs 5",
    "bpe generate smollm2 --batch prompts.txt --dtype bfloat16 --threads 2",
)
def generate(
    model: str,
    prompts: Sequence[str],
    file: str | None,
    batch: str | None,
    logit_bias: Sequence[str],
    as_json: bool,
    logprobs: int | None,
    dtype: str | None,
    device: str,
    backend: str,
    threads: int | None,
    **settings: Any,
) -> None:
    """Let a model continue a text; it is printed as it is written.

    Several texts, of several prompts or --samples, are written at once, and printed when all are done: an empty line
    stands between them.
    """
    if logprobs is not None and not as_json:
        raise click.UsageError("--logprobs is for --json")
    settings |= {"logit_bias": dict(map(_bias, logit_bias)), "logprobs": logprobs}
    texts = _prompts(prompts, file, batch)
    start = time.perf_counter()
    transformer, tokenizer = _load(model, dtype, device, backend, threads)
    load_seconds = time.perf_counter() - start

    from model import Completions

    completions = Completions(transformer, tokenizer, texts, **settings)
    alone = len(texts) * settings["samples"] == 1 and not as_json
    if alone:
        _print_answer(piece for pieces in (texts, (piece for _, piece in completions)) for piece in pieces)
    else:
        for _ in completions:
            pass
    times = completions.generation.times
    rates = {
        "prefill": times.prefill_tokens / max(times.prefill_seconds, 1e-9),
        "decode": times.decode_tokens / max(times.decode_seconds, 1e-9),
    }
    if as_json:
        import json

        seconds = {"load": load_seconds, "prefill": times.prefill_seconds, "decode": times.decode_seconds}
        for text in completions.texts:
            told: dict[str, Any] = {
                "prompt": texts[text.prompt],
                "text": text.text,
                "ids": text.ids,
                "finish": text.finish,
            }
            if logprobs is not None:
                told |= {"logprobs": text.logprobs, "top_logprobs": text.top_logprobs}
            click.echo(json.dumps({**told, "seconds": seconds, "tokens_per_second": rates}))
    elif not alone:
        click.echo("\n\n".join(texts[text.prompt] + text.text for text in completions.texts))
    click.echo(
        f"prefill {times.prefill_tokens:,} tokens, {rates['prefill']:,.0f} tokens per second;"
        f" decode {times.decode_tokens:,} tokens, {rates['decode']:,.1f} tokens per second",
        err=True,
    )


def _prompts(prompts: Sequence[str], file: str | None, batch: str | None) -> list[str]:
    """What to continue: the arguments, or a file, or the lines of a file, or stdin."""
    if sum(map(bool, (prompts, file, batch))) > 1:
        raise click.UsageError("give one of -p / --prompt, --file and --batch")
    if prompts:
        return [os.fsencode(prompt).decode(errors="replace") for prompt in prompts]
    ((_, content),) = _inputs([file or batch or "-"], None)
    text = content.decode(errors="replace").replace("\r\n", "\n")
    if batch is None:
        return [text.rstrip("\n")]
    lines = [line for line in text.split("\n") if line]
    if not lines:
        from bpe import InputError

        raise InputError(f"{batch}: no prompts; write one in each line")
    return lines


def _bias(text: str) -> tuple[int, float]:
    id, _, bias = text.partition("=")
    try:
        return int(id), float(bias)
    except ValueError:
        raise click.UsageError(f"--logit-bias {text}: write ID=NUMBER, such as 13=-5 or 13=-inf") from None


@cli.command()
@click.argument("model", metavar="MODEL")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option(
    "--choices",
    multiple=True,
    metavar="FILE",
    help='Questions, a JSON object a line: "question", "choices", "answer" (index from 0); repeat.',
)
@click.option("--delimiter", default=" ", metavar="STRING", help="What stands between a question and a choice.")
@separator_option
@click.option("--field", default="text", metavar="KEY", help="The key of the text in .jsonl files.")
@exclude_option
@click.option("--window", type=int, metavar="N", help="Tokens read at once.  [default: the context, 2,048 at the most]")
@click.option("--stride", type=int, metavar="N", help="From one window to the next.  [default: half the window]")
@click.option(
    "--batch-tokens", type=click.IntRange(min=1), default=4096, metavar="N", help="Tokens that are computed at once."
)
@click.option("--samples", type=click.IntRange(min=100), default=1000, metavar="N", help="Draws of the bootstrap.")
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", help="Of the draws.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@dtype_option
@device_option
@threads_option
@examples(
    "bpe eval runs/tales corpora/prose.txt 'news/*.txt'",
    "bpe eval smollm2 wiki.jsonl.gz --window 1024 --stride 256 --dtype float32",
    "bpe eval smollm2 --choices questions.jsonl",
    "cat *.txt | bpe eval runs/tales - --json",
)
def eval(
    model: str,
    texts: Sequence[str],
    choices: Sequence[str],
    delimiter: str,
    separator: str | None,
    field: str,
    exclude: Sequence[str],
    window: int | None,
    stride: int | None,
    batch_tokens: int,
    samples: int,
    seed: int,
    as_json: bool,
    dtype: str | None,
    device: str,
    threads: int | None,
) -> None:
    """Tell how well a model predicts texts, and how often it chooses the right answer.

    Of each text (a file, directory, glob, .jsonl, .gz, .xz, or - for stdin): bits per byte, which compare models of any
    vocabulary, perplexity per token, which does not, and how often the model held the next token likeliest. A text
    longer than the window is read in windows that overlap, and each token is predicted once, from at least
    window - stride tokens before it. The smaller the stride, the better and the slower.

    Of --choices: how often the right choice is the likeliest behind its question; by its likelihood, by that for each
    of its tokens, and by that for each of its bytes.

    The 95% intervals are of the bootstrap over documents, or blocks of 1,000 bytes where there are fewer than 100
    documents, and over questions.
    """
    if not texts and not choices:
        raise click.UsageError("give texts, or --choices FILE")
    start = time.perf_counter()
    transformer, tokenizer = _load(model, dtype, device, "torch", threads)

    from model.evaluation.choices import choices_table, evaluate_choices, read_questions
    from model.evaluation.texts import evaluate_texts, read_text, texts_table
    from model.evaluation.windows import check_window

    # 1. Read everything, so that what is wrong is said before the work.
    context = transformer.config.max_seq_len
    window = min(context, 2048) if window is None else window
    stride = max(1, window // 2) if stride is None else stride
    check_window(window, stride, context)
    read = [read_text(tokenizer, _watched([text], separator, exclude, field), text) for text in texts]
    questions = [read_questions(tokenizer, file, context, delimiter) for file in choices]

    # 2. Measure.
    settings: dict[str, Any] = {"batch_tokens": batch_tokens, "samples": samples, "seed": seed}
    found: dict[str, Any] = {
        "model": model,
        "dtype": str(transformer.tok_embeddings.weight.dtype).removeprefix("torch."),
        "window": window,
        "stride": stride,
        **settings,
    }
    begun = time.perf_counter()
    if read:
        with _share_done(", ".join(texts)) as progress:
            found |= evaluate_texts(
                transformer, tokenizer, read, window=window, stride=stride, progress=progress, **settings
            )
    found["choices"] = []
    for file, asked in zip(choices, questions, strict=True):
        with _share_done(file) as progress:
            found["choices"].append(evaluate_choices(transformer, asked, file, progress=progress, **settings))
    found["seconds"] = {"load": begun - start, "evaluate": time.perf_counter() - begun}

    # 3. Tell.
    if as_json:
        import json

        click.echo(json.dumps(found, indent=2))
    else:
        tables = [texts_table(found)] if read else []
        tables += [choices_table(found["choices"])] if choices else []
        click.echo("\n".join(table.text() for table in tables), nl=False)
    click.echo(_evaluated(found, bool(read)), err=True)


@contextmanager
def _share_done(name: str) -> Iterator[Callable[[float], None]]:
    """Something to call with the share of the work that is done; it is shown with the time that is left."""
    status = Status()
    start = time.monotonic()

    def show(share: float) -> None:
        left = (time.monotonic() - start) * (1 - share) / max(share, 1e-9)
        status.show(f"evaluating  {_bar(share)} {share:4.0%}  {left:,.0f} s left  {_shortened(name, 40)}")

    try:
        yield show
    finally:
        status.done()


def _evaluated(found: Mapping[str, Any], with_texts: bool) -> str:
    """What was done, in a line for people."""
    parts = []
    if with_texts:
        everything = found["all_texts"]
        parts.append(
            f"{everything['tokens']:,} tokens in {everything['documents']:,} documents, window {found['window']:,},"
            f" stride {found['stride']:,}"
        )
        if everything["bytes_left_out"]:
            parts.append(f"{everything['bytes_left_out']:,} bytes are not predicted and not counted")
    if found["choices"]:
        parts.append(f"{sum(row['questions'] for row in found['choices']):,} questions")
    return f"{'; '.join(parts)}; {found['dtype']}, {found['seconds']['evaluate']:,.1f} s"


@cli.command()
@click.argument("source", metavar="IN")
@click.argument("output", metavar="OUT")
@click.option(
    "--format",
    "format_name",
    metavar="NAME",
    help="huggingface, bpe-llama, meta, or gguf.  [default: gguf for OUT.gguf, else huggingface]",
)
@click.option(
    "--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), help="Of the weights.  [default: that of IN]"
)
@click.option(
    "--resize-vocab",
    "tokenizer",
    metavar="NAME|FILE",
    help="A tokenizer that IN's has grown into: embeddings and head get rows for the new tokens.",
)
@click.option(
    "--quantize",
    type=click.Choice(["q8_0", "q6_k", "q4_k", "q4_1", "q4_0"]),
    help="Write the matrices in a type of llama.cpp's, with 8.5, 6.6, 4.5, 5 or 4.5 bits a weight; GGUF only.",
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
    """Write a model in another format, with its tokenizer: Meta's, Hugging Face's, GGUF, or this project's.

    The weights go through memory tensor by tensor. OUT is a new directory, or a new file for GGUF; it takes its name
    when it is complete. Quantized weights are written in bfloat16, unless --dtype or --quantize says otherwise.

    With --resize-vocab each token keeps its row of the embeddings and of the head, whatever its id is now. The row of a
    new token is the mean of those that it was written with before.
    """
    import torch

    from model.checkpoint import convert as convert_checkpoint
    from model.checkpoint import format_of, open_checkpoint
    from model.checkpoint.quantize import exceptions, kind_named

    status = Status()

    def progress(done: int, total: int) -> None:
        status.show(f"converting  {_bar(done / total)} {done:,} of {total:,} tensors")

    try:
        torch_dtype = getattr(torch, dtype) if dtype else None
        convert_checkpoint(source, output, format_name, torch_dtype, progress, tokenizer, quantize)
    finally:
        status.done()
    if quantize:
        for line in exceptions(open_checkpoint(output).config, kind_named(quantize)):
            click.echo(line, err=True)
    size = sum(file.stat().st_size for file in [Path(output), *Path(output).glob("*")] if file.is_file())
    click.echo(f"{output}: {format_of(output)}, {_amount(size)}B", err=True)


@cli.command()
@click.argument("name", metavar="MODEL")
@click.option("--system", metavar="TEXT", help="What the model is told before the first question.")
@click.option("--max-tokens", type=int, default=1024, metavar="N", help="Write at most so many tokens an answer.")
@click.option("--temperature", type=float, default=0.6, metavar="X", help="0 always takes the likeliest token.")
@click.option("--top-k", type=int, metavar="N", help="Choose among the N likeliest only.  [default: no limit]")
@click.option("--top-p", type=float, default=0.9, metavar="X", help="Choose among the likeliest that sum to this.")
@click.option(
    "--seed", type=int, metavar="N", help="The same seed gives the same chat.  [default: a new one each time]"
)
@dtype_option
@device_option
@backend_option
@threads_option
@examples(
    "bpe chat smollm2",
    "bpe chat runs/assistant --system 'Answer in one sentence.' --temperature 0",
    "echo 'How many legs has a spider?' | bpe chat smollm2",
)
def chat(
    name: str,
    system: str | None,
    dtype: str | None,
    device: str,
    backend: str,
    threads: int | None,
    **settings: Any,
) -> None:
    """Talk with a model that was trained to chat.

    In a terminal, Ctrl-C stops the answer and keeps the chat, and Ctrl-D ends it. There are commands: /system TEXT
    tells the model what to be, /reset forgets what was said, /save FILE and /load FILE keep it as JSON, /exit ends.

    In a pipe, each line of stdin is a question, and stdout has the answers, with an empty line between them.
    """
    from bpe.chat import chat_format
    from bpe.locate import locate
    from model.checkpoint import open_checkpoint
    from model.generation.conversation import Conversation

    path = locate(name)
    model, tokenizer = _load(path, dtype, device, backend, threads)
    # The template stands beside the tokenizer, which an adapter may leave to its base.
    template = open_checkpoint(path).tokenizer
    conversation = Conversation(model, tokenizer, chat_format(template, tokenizer), **settings)
    conversation.system = system
    if sys.stdin.isatty():
        _talk(conversation)
        return
    questions = filter(None, (line.decode(errors="replace").strip() for line in sys.stdin.buffer))
    for number, question in enumerate(questions):
        click.echo("\n" if number else "", nl=False)
        _print_answer(conversation.answer(question))


def _print_answer(pieces: Generator[str, None, None]) -> None:
    with closing(pieces):
        for piece in pieces:
            click.echo(piece, nl=False)
            sys.stdout.flush()
    click.echo()


def _talk(conversation: Conversation) -> None:
    """A chat at a terminal. What goes wrong is said, and the chat goes on."""
    from bpe import InputError

    with suppress(ImportError):  # where it is there, input() has a history and can be edited
        import readline  # noqa: F401
    click.echo("Ctrl-C stops an answer, Ctrl-D ends; /system TEXT, /reset, /save FILE, /load FILE, /exit", err=True)
    while True:
        try:
            line = _ask("> ").strip()
            if line.split(" ")[0] == "/exit":
                return
            if line.startswith("/"):
                _obey(conversation, *line.partition(" ")[::2])
            elif line:
                _print_answer(conversation.answer(line))
                if conversation.is_full:
                    click.echo("bpe: the context of the model is full; /reset begins a new dialog", err=True)
        except EOFError:
            click.echo(err=True)
            return
        except KeyboardInterrupt:
            click.echo(err=True)
        except (InputError, OSError) as error:
            click.echo(f"bpe: {_in_one_line(error)}", err=True)


def _ask(prompt: str) -> str:
    if sys.stdout.isatty():
        return input(prompt)
    click.echo(prompt, err=True, nl=False)  # input() would write it to stdout
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _obey(conversation: Conversation, command: str, argument: str) -> None:
    """A command within a chat."""
    import json

    from bpe import InputError
    from bpe.files import write_json

    argument = argument.strip()
    if command == "/reset":
        conversation.reset()
    elif command == "/system":
        conversation.system = argument
    elif command == "/save" and argument:
        write_json(argument, conversation.messages)
    elif command == "/load" and argument:
        try:
            conversation.restore(json.loads(Path(argument).read_bytes()))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{argument}: {error}") from error
        click.echo(f"{len(conversation.messages)} messages", err=True)
    else:
        raise InputError(f"{command}: not a command; there are /system TEXT, /reset, /save FILE, /load FILE, /exit")


@cli.command()
@click.argument("prompt", required=False)
@click.option("-m", "--model", required=True, metavar="NAME|DIRECTORY", help="The model that is watched.")
@click.option("--layer", type=int, default=0, metavar="N", help="The layer that is shown in full, from 0.")
@click.option("--head", type=int, default=0, metavar="N", help="The head that is shown in full, from 0.")
@click.option("--top", type=click.IntRange(min=1), default=10, metavar="N", help="How many next tokens are shown.")
@click.option("--png", metavar="FILE", help="Draw who looks at whom into this file; needs the extra `report`.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Colour in the pictures.")
@dtype_option
@device_option
@examples(
    "bpe explain 'the answer to the ultimate question of life' -m runs/tales",
    "bpe explain 'One day, a fox' -m runs/tales --layer 2 --head 1 --png attention.png",
)
def explain(
    prompt: str | None,
    model: str,
    layer: int,
    head: int,
    top: int,
    png: str | None,
    as_json: bool,
    color: str,
    dtype: str | None,
    device: str,
) -> None:
    """Walk through a model with a prompt (or stdin): from its tokens to the one that comes next, step by step.

    Each step shows its shape, and for the first two tokens and the last a few numbers and a row of blocks: a block is
    the number farthest from 0 in its part of the row, low if negative and high if positive.
    """
    import json
    import textwrap

    import torch

    from model import load
    from model.explain.pictures import picture, plot_shares, record
    from model.explain.steps import explain as walk
    from model.generation.completions import prompt_ids

    if png is not None:
        import matplotlib  # noqa: F401, what is missing is said before the work
    if prompt is None:
        prompt = sys.stdin.read().rstrip("\n")
    transformer, tokenizer = load(model, getattr(torch, dtype) if dtype else None, device)
    ids = prompt_ids(tokenizer, prompt)

    def label(id: int) -> str:
        try:
            token = tokenizer.decode_single_token_bytes(id)
        except KeyError:
            return f"<{id}>"
        return _visible(token, newline="⏎").replace(" ", "·")

    steps = list(walk(transformer, ids, layer=layer, head=head, n_vocab=tokenizer.n_vocab))
    if png is not None:
        shares = next(step for step in steps if step.picture == "shares").tensor
        plot_shares(shares, [label(id) for id in ids], f"layer {layer}, head {head}", Path(png))
    if as_json:
        found = {"prompt": prompt, "layer": layer, "head": head}
        click.echo(json.dumps(found | {"steps": [record(step, label, top=top) for step in steps]}, indent=2))
        return
    coloured = _in_colour(color)
    for number, step in enumerate(steps, 1):
        title = f"{number}. {step.title}"
        shown = click.style(title, bold=True) if coloured else title
        click.echo(f"{shown}  {step.shape} {step.axes}, {step.dtype}\n{textwrap.fill(step.text, 80)}", color=coloured)
        for line in picture(step, ids, label, top=top, colour=coloured):
            click.echo(f"  {line}", color=coloured)
        click.echo()


@cli.command()
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
    from bpe.verify import Report, reference_of, require_identical, tiktoken_reference
    from bpe.verify import verify as verify_tokenizer

    status = Status()

    def progress(report: Report) -> None:
        status.show(f"comparing  {report.bytes / 1e6:,.1f} MB in {report.documents:,} documents")

    tokenizer = _tokenizer(name, pattern)
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


@cli.command()
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
    from bpe.analysis.compare import table

    if not texts:
        *names, text = names
        texts = [text]
    if len(names) < 2:
        raise click.UsageError("give two tokenizers or more, and then a text (or --on TEXT)")
    tokenizers = [(name, _tokenizer_or_ranks(name, pattern)) for name in names]
    stream = _watched(texts, separator, exclude)
    found = compare_tokenizers(tokenizers, stream, name=", ".join(texts), samples=samples, seed=seed)
    if as_json:
        import json

        click.echo(json.dumps(found, indent=2))
        return
    click.echo(table(found).text(), nl=False)
    size = f"{found['documents']:,} documents, {found['bytes']:,} bytes"
    if found["tokenizers"][0]["tokens_relative_interval"] is None:
        click.echo(f"{size}: too little text for intervals", err=True)
    else:
        click.echo(f"{size}; intervals from {samples:,} draws of {found['units']:,} {found['unit']}", err=True)


def _shards_info(directory: Path) -> list[tuple[str, str]]:
    from bpe.shards import Shards

    shards = Shards(directory)
    rows = [
        ("shards", str(directory)),
        ("vocabulary", f"{shards.n_vocab:,} ids, {shards.dtype.name} each ({shards.tokenizer_path.name})"),
    ]
    for split, label in (("train", "to train on"), ("held_out", "held out")):
        tokens, size = shards.token_count(split), shards.byte_count(split)
        rows.append((label, f"{shards.document_count(split):,} documents, {tokens:,} tokens, {size:,} bytes"))
    rows.append(("tokenizer", f"SHA-256 {shards.tokenizer_sha256}"))
    for source in shards.corpus["sources"]:
        name = source["source"] or "documents of a program"
        files = f" in {len(source['files']):,} files" if source["files"] else ""
        counts = f"{source['documents']:,} documents{files}, {source['bytes']:,} bytes"
        rows.append(("source", f"{name}: {counts}, CRC-32 {source['crc32']:08x}"))
    return rows


MODEL_FILES = ("params.json", "config.json", "adapter_config.json")


def _is_model(path: Path) -> bool:
    """Whether this is a model rather than a tokenizer, as far as names tell."""
    if path.is_dir():
        return any((path / name).is_file() for name in ("params.json", "config.json", "adapter_config.json")) or any(
            path.glob("*.gguf")
        )
    return path.suffix in (".gguf", ".safetensors", ".pth") or path.name in ("params.json", "config.json")


def _model_info(path: Path, batch: int, length: int | None) -> list[tuple[str, str]]:
    from model.checkpoint import format_of, open_checkpoint
    from model.loading import backend_of

    checkpoint = open_checkpoint(path)
    backend, reason = backend_of(checkpoint)
    stored = checkpoint.stored or str(checkpoint.dtype).removeprefix("torch.")
    return [
        ("model", str(path)),
        ("format", f"{format_of(path)}, weights in {stored}"),
        ("backend", f"{backend}: {reason}"),
        *_config_rows(checkpoint.config, batch, length),
    ]


def _preset_info(name: str, batch: int, length: int | None) -> list[tuple[str, str]]:
    from model.config import PRESETS, ModelConfig

    if name not in PRESETS:
        return []
    return [("preset", name), *_config_rows(ModelConfig.preset(name), batch, length)]


def _config_rows(config: Any, batch: int, length: int | None) -> list[tuple[str, str]]:
    from bpe import InputError

    length = length or config.max_seq_len
    if length > config.max_seq_len:
        raise InputError(f"--length {length:,}, but the context of the model holds {config.max_seq_len:,} tokens")
    parts = ", ".join(f"{part.replace('_', '-')} {count:,}" for part, count in config.parameters().items())
    rope = f"RoPE theta {config.rope_theta:,.0f}" + (", scaled" if config.use_scaled_rope else "")
    biases = [name for name, there in (("wq, wk, wv", config.qkv_bias), ("wo", config.wo_bias)) if there]
    cached = f"{length:,} tokens" if batch == 1 else f"{batch:,} sequences of {length:,} tokens"
    return [
        (
            "shape",
            f"dim {config.dim:,}, {config.n_layers} layers, {config.n_heads} heads, {config.n_kv_heads} key-value heads"
            f" of {config.head_dim}, feed-forward {config.hidden_dim:,}"
            + (f", bias on {', '.join(biases)}" if biases else ""),
        ),
        ("context", f"{config.max_seq_len:,} tokens, {rope}"),
        ("vocabulary", f"{config.vocab_size:,}" + (", embeddings tied" if config.tied_embeddings else "")),
        ("parameters", f"{config.n_parameters:,}: {parts}"),
        (
            "weights",
            ", ".join(
                f"{_amount(config.n_parameters * size)}B in {dtype}"
                for dtype, size in (("float32", 4), ("bfloat16", 2), ("int8", 1))
            ),
        ),
        (
            "KV cache",
            f"{_amount(config.kv_cache_bytes(1, 1, 2))}B a token, {_amount(config.kv_cache_bytes(batch, length, 2))}B"
            f" for {cached}, in bfloat16",
        ),
        (
            "prefill",
            f"{_amount(config.prefill_flops(length))}FLOP for {length:,} tokens,"
            f" {_amount(config.prefill_flops(length) / length)}FLOP a token",
        ),
        (
            "decode",
            f"{_amount(config.decode_flops(0))}FLOP for the first token, {_amount(config.decode_flops(length - 1))}FLOP"
            f" for token {length:,}",
        ),
    ]


def _amount(number: float) -> str:
    """The number with three digits and a decimal prefix: 16.1 G"""
    for prefix in ("", "k", "M", "G", "T"):  # noqa: B007
        if number < 999.5:
            break
        number /= 1000
    return f"{number:.3g} {prefix}"


def main() -> None:
    """The entry point of the command `bpe`."""
    cli(prog_name="bpe")


if __name__ == "__main__":
    main()
