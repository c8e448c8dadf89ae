"""`bpe train`: learn a vocabulary from text."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bpe.columns import clipped
from bpe.commands.describe import print_report
from bpe.commands.inputs import check_sources, open_tokenizer_or_ranks, read_documents, read_lines
from bpe.commands.next_steps import after_training, name_next
from bpe.commands.options import (
    Command,
    examples,
    exclude_option,
    field_option,
    group,
    progress_options,
    refuse_given,
    tell_defaults,
)
from bpe.commands.pictures import dark_option, format_option, picture_settings
from bpe.commands.shards import SHARDS
from bpe.commands.terminal import counted, stdout_columns
from bpe.commands.types import parse_size
from bpe.progress import current, phase, say
from bpe.quoting import quoted

if TYPE_CHECKING:
    from bpe.training.settings import MergeStep, Trained

# Without --vocab-size, the size depends on the corpus: a pair that occurs ten times is common enough for a model to
# learn its token. 32,000 is the vocabulary of Llama 1 and 2.
_OUTPUT, _VOCAB_SIZE, _FREQUENCY = "tokenizer.json", 32_000, 10

# The other algorithms, the default output of each, and the options that they do not have.
_SUBWORDS = {"sentencepiece-bpe": "tokenizer.model", "unigram": "tokenizer.model", "wordpiece": "tokenizer.json"}
_ONLY_BPE = (
    *("pattern", "base", "no_special", "require", "counts", "weight", "tie_break", "max_token_length", "trace"),
    *("max_memory", "resume", "report", "held_out", "formats", "dark", "errors"),
)
_NOT_OF = {"sentencepiece-bpe": (), "unigram": ("min_frequency",), "wordpiece": ("threads", "normalizer")}
# The default of --normalizer. The other names are those of `bpe.training.pieces.NORMALIZERS`.
_NORMALIZER = {"sentencepiece-bpe": "identity", "unigram": "nmt_nfkc"}

# Options about reading a corpus, which `train_from_counts` does not have.
_READING = ("field", "errors", "exclude", "max_memory")


@click.command(cls=Command, needed={"CORPUS (- for stdin, or --counts FILE)": ("corpus", "counts", "resume")})
@click.argument("corpus", nargs=-1, metavar="CORPUS...")
@group(
    "Vocabulary",
    click.option(
        "-o",
        "--output",
        metavar="FILE",
        help=f"Tokenizer file to write: .json, or .model / .tiktoken.  [default: {_OUTPUT}, if there is no such file]",
    ),
    click.option(
        "--algorithm",
        type=click.Choice(["bpe", *_SUBWORDS]),
        default="bpe",
        help="Byte-level BPE; BPE of characters in SentencePiece's form (written as .model); or an algorithm of another"
        " library: unigram (.model) or wordpiece (.json).",
    ),
    click.option(
        "--vocab-size",
        type=int,
        metavar="N",
        help=f"Number of tokens, including the special tokens.  [default: as many as occur {_FREQUENCY} times, at most"
        f" {_VOCAB_SIZE:,}]",
    ),
    click.option(
        "--pattern", metavar="NAME|REGEX", help="Split pattern: llama3, o200k, gpt2, or a regex.  [default: llama3]"
    ),
    click.option(
        "--normalizer",
        type=click.Choice(["identity", "nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf"]),
        help="How sentencepiece-bpe and unigram normalize text: not at all, or by one of SentencePiece's rules, which"
        " need the extra `subwords`; those with _cf also make text lowercase.  [default: identity; nmt_nfkc for"
        " unigram]",
    ),
    click.option("--base", metavar="NAME|FILE", help="Tokenizer to extend: its ids stay, and new tokens are added."),
    click.option(
        "--special",
        multiple=True,
        metavar="TOKEN",
        help="Special token, besides those of --base; repeatable.  [default: those of --base, or of the pattern]",
    ),
    click.option("--no-special", is_flag=True, help="Have no special tokens, not even those of --base."),
    click.option("--require", metavar="FILE", help="File of tokens, one per line, to include even if rare or absent."),
)
@group(
    "Corpus",
    click.option(
        "--counts",
        metavar="FILE",
        help="Train on counted pretokens instead of CORPUS: .jsonl or .parquet with `pretoken` and `count`.",
    ),
    click.option(
        "--weight",
        multiple=True,
        metavar="CORPUS=X",
        help="Multiply the counts of one source by X, such as wiki.txt=0.5; repeatable.",
    ),
    field_option,
    click.option(
        "--errors",
        type=click.Choice(["replace", "ignore", "strict"]),
        default="replace",
        help="How to handle bytes that are not valid UTF-8.",
    ),
    exclude_option,
)
@group(
    "Merges",
    click.option(
        "--tie-break",
        type=click.Choice(["bytes", "huggingface"]),
        default="bytes",
        help="Order of pairs with equal counts: lowest ids first (bytes), or as Hugging Face orders them.",
    ),
    click.option(
        "--min-frequency",
        type=int,
        metavar="N",
        help=f"Smallest count at which a pair is merged.  [default: 1; {_FREQUENCY} without --vocab-size]",
    ),
    click.option(
        "--max-token-length", type=int, metavar="BYTES", help="Longest token to create, in bytes.  [default: no limit]"
    ),
    click.option("--allow-smaller", is_flag=True, help="Accept fewer tokens when the corpus has no more pairs."),
    click.option(
        "--trace", type=click.IntRange(min=0), default=0, metavar="N", help="Number of merges to print, from the first."
    ),
)
@group(
    "Resources",
    click.option("--threads", type=int, metavar="N", help="Number of counting threads.  [default: all processors]"),
    click.option(
        "--max-memory",
        type=parse_size,
        metavar="SIZE",
        help="Memory limit of the process, such as 2G; counts beyond it go to disk.  [default: no limit]",
    ),
    click.option(
        "--resume",
        metavar="DIR",
        help="Work directory to resume from, or to create.  [default: OUTPUT.work]",
    ),
)
@group(
    "Report",
    click.option("--report", metavar="DIR", help="Directory to write tables, JSON and plots about the vocabulary to."),
    click.option(
        "--held-out", multiple=True, metavar="FILE", help="Text to report on but not to train on; repeatable."
    ),
    format_option,
    dark_option,
)
@progress_options()
@examples(
    "bpe train corpora",
    "bpe train corpora -o my.json --vocab-size 4096",
    "bpe train 'src/**/*.py' -o code.json --vocab-size 8192 --special '<|endoftext|>'",
    "zcat big.txt.gz | bpe train - -o big.model --vocab-size 32000 --pattern gpt2",
    "bpe train web.parquet code/ --weight code/=2 -o mix.json --vocab-size 128000 --max-memory 2G",
    "bpe train --resume mix.json.work",
    "bpe train --counts words.parquet -o words.json --vocab-size 128000",
)
@click.pass_context
def train(context: click.Context, /, **options: Any) -> None:
    """Train a vocabulary on text.

    CORPUS is files, directories, globs, or - for stdin. Each record of a .jsonl or .parquet file is a document; any
    other file is one document. Files may be compressed (.gz, .xz, .bz2, .zst), except .parquet. Of a directory, hidden
    files are skipped, and binary ones, which are counted at the end; a file that is named is read whatever it holds.

    Training that takes longer than half a minute saves its progress in OUTPUT.work. To resume it, run the same command
    again, or give --resume alone. The directory is removed at the end.

    With --counts, pretokens that were counted elsewhere, such as on a cluster, take the place of the corpus.
    """
    from bpe.errors import InputError
    from bpe.training.work import read_state

    algorithm = options.pop("algorithm")
    if algorithm != "bpe":
        refuse_given(f"with --algorithm {algorithm}", *_ONLY_BPE, *_NOT_OF[algorithm])
        check_sources(options["corpus"], awaited="the corpus")
        _train_subwords(algorithm, options)
        return
    refuse_given("with --algorithm bpe", "normalizer")
    del options["normalizer"]
    if options["resume"] and not (options["corpus"] or options["counts"]):
        free = ("resume", "quiet", "as_events")
        others = [str(parameter.name) for parameter in context.command.params if parameter.name not in free]
        refuse_given("with --resume alone, which repeats the options of the interrupted run", *others)
        note = read_state(options["resume"]).get("note", {})
        if note.get("directory") != os.getcwd():
            raise InputError(
                f"{options['resume']}: this training was started in {note.get('directory')}; resume it from there"
            )
        options = {"counts": None, **note["options"], "resume": options["resume"]}
    if options["counts"]:
        refuse_given("with --counts", "corpus", "weight", "field", "errors", "max_memory", "resume")
        if not options["held_out"]:
            refuse_given("with --counts and without --held-out", "exclude")
    if not options["report"]:
        refuse_given("without --report DIR", "held_out", "formats", "dark")
    if options["no_special"]:
        refuse_given("with --no-special", "special")
    if not options["resume"]:  # whose counts may be complete, so that the corpus is no longer needed
        check_sources(options["corpus"], awaited="the corpus")
    _choose_defaults(options)
    _train({"directory": os.getcwd(), "options": options}, **options)


def _train_subwords(algorithm: Any, options: dict[str, Any]) -> None:
    """Train by another algorithm; see `bpe.subwords.training` and `bpe.training.pieces`."""
    from bpe import InputError

    output = options["output"] or _SUBWORDS[algorithm]
    suffix = Path(_SUBWORDS[algorithm]).suffix
    if options["output"] is None and Path(output).exists():
        raise InputError(f"{output}: already exists; give -o FILE to name another file, or to replace this one")
    if Path(output).suffix != suffix:
        raise InputError(f"{output}: a vocabulary of {algorithm} is written as {suffix}; name the file so")
    _check_outputs(output, None)
    size = options["vocab_size"] or _VOCAB_SIZE
    chosen = {} if options["output"] else {"output": output}
    if options["vocab_size"] is None:
        tell_defaults(**chosen, vocab_size=f"at most {size:,}")
    start = time.monotonic()
    shared: dict[str, Any] = {
        "vocab_size": size,
        "special_tokens": options["special"],
        "min_frequency": options["min_frequency"] or 1,
        "allow_smaller": options["allow_smaller"] or options["vocab_size"] is None,
        "threads": options["threads"] or os.cpu_count() or 1,
    }
    if algorithm in _NORMALIZER:
        shared["normalizer"] = options["normalizer"] or _NORMALIZER[algorithm]
    documents = read_documents(options["corpus"], None, options["exclude"], options["field"], "reading")
    with phase("training"):  # shown once the text has been read
        tokens = _write_trained(algorithm, documents, output, shared)
    seconds = time.monotonic() - start
    text = f"{output}: {tokens:,} tokens of {algorithm}, {seconds:.1f} s"
    current().done(text, output=output, tokens=tokens, algorithm=algorithm, seconds=round(seconds, 3))
    name_next(*after_training(output, options["corpus"], options["field"], options["exclude"], SHARDS))


def _write_trained(algorithm: Any, documents: Iterable[bytes], output: str, shared: Mapping[str, Any]) -> int:
    """Train, write the vocabulary, and return the number of its tokens."""
    from bpe import Tokenizer
    from bpe.files import write_bytes
    from bpe.subwords.training import Lines, SubwordSettings, train_subwords
    from bpe.training.pieces import PIECES, PieceSettings, train_pieces

    if algorithm == "sentencepiece-bpe":
        settings = PieceSettings(**shared)
        model = train_pieces(Lines(documents, [*PIECES, *settings.special_tokens]), settings)
        write_bytes(Path(output), model.content)
        return model.size
    library_settings = SubwordSettings(**shared, name=Path(output).stem)
    tokenizer = Tokenizer.from_vocabulary(train_subwords(algorithm, documents, library_settings))
    tokenizer.save(output)
    return tokenizer.n_vocab


def _choose_defaults(options: dict[str, Any]) -> None:
    """Fill in the output and the size of the vocabulary, and print them, if they are not given.

    Raises:
        InputError: When the default output exists.
    """
    from bpe.errors import InputError

    chosen: dict[str, object] = {}
    if options["output"] is None:
        if Path(_OUTPUT).exists():
            raise InputError(f"{_OUTPUT}: already exists; give -o FILE to name another file, or to replace this one")
        chosen["output"] = options["output"] = _OUTPUT
    if options["vocab_size"] is None:
        if options["min_frequency"] is None:
            options["min_frequency"] = _FREQUENCY
        base = open_tokenizer_or_ranks(options["base"], options["pattern"]).n_vocab if options["base"] else 0
        options |= {"vocab_size": base + _VOCAB_SIZE, "allow_smaller": True}
        chosen["vocab_size"] = (
            f"at most {options['vocab_size']:,}, as long as a pair occurs {options['min_frequency']} times or more"
        )
    if options["min_frequency"] is None:
        options["min_frequency"] = 1
    if chosen:
        tell_defaults(**chosen)


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
    counts: str | None = None,
    formats: Sequence[str] = (),
    dark: bool = False,
    **options: Any,
) -> None:
    from bpe import train as train_from_files
    from bpe import train_from_counts
    from bpe.training.work import STATE

    _check_outputs(output, report)
    pictures = picture_settings(report, formats, dark) if report else None
    work = resume or f"{output}.work"
    if not counts and (Path(work) / STATE).exists():
        say(f"resuming from {work}")
    start = time.monotonic()

    def trained(result: Trained) -> None:
        with phase(f"writing {output}"):
            result.tokenizer.save(output)
        _finish(result, output, time.monotonic() - start)
        if report:
            from bpe.analysis.report import training_report, write_report

            texts = ((text, read_documents([text], None, options["exclude"])) for text in held_out)
            found = training_report(result.tokenizer, result.uses, texts)
            files = write_report(found, report, pictures)
            if not current().is_for_programs:
                print_report(found)
            say(f"{report}: {', '.join(file.name for file in files)}")
        if current().is_for_programs:
            current().done(
                "",
                output=output,
                tokens=result.tokenizer.n_vocab,
                documents=result.documents,
                bytes=result.size,
                invalid_utf8=sum(invalid.sequences for invalid in result.invalid),
                left_out=len(result.left_out),
                seconds=round(time.monotonic() - start, 3),
                report=report,
            )
        name_next(*after_training(output, corpus, options["field"], options["exclude"], SHARDS))

    settings: dict[str, Any] = {
        "base": open_tokenizer_or_ranks(base, options["pattern"]) if base else None,
        "special_tokens": () if no_special else special or None,
        "required_tokens": read_lines(require) if require else (),
        "name": Path(output).stem,
        "traced": _Trace().step,
        "trained": trained,
    }
    if counts:
        merging = {name: value for name, value in options.items() if name not in _READING}
        train_from_counts(counts, **settings, **merging)
        return
    try:
        train_from_files(corpus, weights=_weights(corpus, weight), work=work, note=note, **settings, **options)
    except BaseException:
        if (Path(work) / STATE).exists():
            say(f"progress is saved; to resume: bpe train --resume {quoted(work)}")
        raise


def _check_outputs(output: str, report: str | None) -> None:
    """Refuse outputs that cannot be written, before the training."""
    from bpe import InputError
    from bpe.formats import SUFFIXES

    if Path(output).suffix not in SUFFIXES:
        raise InputError(f"{output}: unknown suffix; use one of {', '.join(SUFFIXES)}")
    folder = Path(output).absolute().parent
    if not folder.is_dir():
        folder = Path(output).parent
        wrong = f"{folder} is no directory" if folder.exists() else f"the directory {folder} does not exist"
        raise InputError(f"{output}: {wrong}")
    if report:
        from bpe.analysis.report import check_directory

        check_directory(report)


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


class _Trace:
    """The printed merges of --trace."""

    def __init__(self) -> None:
        self._has_header = False

    def step(self, step: MergeStep) -> None:
        """Print one merge, and a word that it shortens."""
        before, after = step.word, [*step.word]
        after[step.place : step.place + 2] = [step.left + step.right]
        words = [[_quoted(token) for token in word] for word in (before, after)]
        left, right, token = (_quoted(each) for each in (step.left, step.right, step.left + step.right))
        if current().is_for_programs:
            fields = {"left": left, "right": right, "token": token, "before": words[0], "after": words[1]}
            current().event("merge", id=step.rank, count=step.times, **fields)
            return
        columns = stdout_columns()
        if not self._has_header:
            header = f"{'id':>7}  {'count':>12}  {'pair':<24}  {'token':<16}  shortens"
            click.echo(header if columns is None else clipped(header, columns))
        self._has_header = True
        line = (
            f"{step.rank:>7}  {step.times:>12,.10g}  {f'{left} + {right}':<24}  {token:<16}"
            f"  {' '.join(words[0])} -> {' '.join(words[1])}"
        )
        click.echo(line if columns is None else clipped(line, columns))


def _finish(result: Trained, output: str, seconds: float) -> None:
    """Report what was trained, and where the corpus was not valid UTF-8."""
    places = sum(invalid.sequences for invalid in result.invalid)
    if result.invalid:
        first = result.invalid[0]
        say(
            f"{places:,} invalid UTF-8 sequences in {counted(len(result.invalid), 'file')}; the first: {first.name},"
            f" {first.first}"
        )
    if result.left_out:
        from bpe.corpus import left_out_line

        say(left_out_line(result.left_out))
    if not current().is_for_programs:
        documents = f" in {counted(result.documents, 'document')}" if result.documents else ""
        say(
            f"{output}: {result.tokenizer.n_vocab:,} tokens from {result.size / 1e6:,.1f} MB"
            f"{documents}, {seconds:.1f} s"
        )


def _quoted(token: bytes) -> str:
    """Return the token as a Python literal: of text if it is valid UTF-8, else of bytes."""
    try:
        return repr(token.decode())
    except UnicodeDecodeError:
        return repr(token)
