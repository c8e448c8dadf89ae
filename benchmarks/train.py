"""Compare vocabulary training with other trainers, on your own text: merges compared first, then time and memory.

    python benchmarks/train.py                                          # corpora/, a short run
    python benchmarks/train.py big.txt code.txt.xz --vocab-sizes 32000,128000 --threads 2
    python benchmarks/train.py big.txt --peers ours,rustbpe,gigabpe --json results.json
    python benchmarks/train.py big.txt --mode counting                  # or phases
    python benchmarks/train.py big.txt --mode processes --vocab-sizes 64000 --threads 2
    python benchmarks/train.py folder --mode growth --json growth.json --plot growth.png

How to read the table: each line is a peer. Its last two numbers are the ratios of its seconds and its memory to ours
for the same task: text split by the same pattern, ties broken by the same rule. The time runs from a file in the page
cache to the vocabulary in the trainer's own form. It includes opening, reading and decoding the file, but not importing
the package or converting the merges. Memory is the peak memory of the process less its memory after the imports, which
the column "imports" shows. ``differs`` marks a peer whose merges do not equal ours, one by one in their order. Such a
peer learned something else, so it has no ratios.

Each run is a separate process on --threads processors. The peers take turns, --repeat times. The table shows the best
and the median; ratios are of the best. Timings are noisy; compare the ratios rather than the absolute numbers.

The modes:

    peers      compare with other trainers
    counting   ours on one thread: MB of text counted per second, with and without reading the file
    phases     ours: the shares of reading, counting and merging
    processes  the command `bpe train` beside a script with gigabpe, from the start of the process to its end: seconds,
               CPU seconds and peak memory, interpreter and imports included
    growth     seconds and memory by the size of the corpus (the beginnings of all files together, one after the other)
               with the middle one of --vocab-sizes, and by --vocab-sizes with the middle one of --megabytes
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle, product
from pathlib import Path
from statistics import median
from typing import Any

import processes
from common import (
    ROOT,
    add_kernel_option,
    choice,
    introduce,
    memory,
    named,
    number,
    reset_peak_memory,
    run_worker,
    show,
    skip_rebuilding,
)

MODES = ("peers", "counting", "phases", "processes", "growth")
VOCAB_SIZES = {
    "peers": [4096],
    "counting": [256],
    "phases": [4096],
    "processes": [4096],
    "growth": [4096, 8192, 16384, 32768, 65536, 131072, 262144],
}
MEGABYTES = [10, 30, 100, 300, 1000, 3000, 10000]
BLOCK = 1 << 20

# --- the peers ---


@dataclass(frozen=True)
class Task:
    """A training task that both a peer and ours can do."""

    pattern: str
    tie_break: str
    lines: bool = False
    """Whether each line is a document. Ours then trains on lines for the merges, and on whole files for the time."""

    def __str__(self) -> str:
        return f"{self.pattern}, {self.tie_break}{', lines' if self.lines else ''}"


@dataclass(frozen=True)
class Job:
    """One training run of a peer on a corpus."""

    peer: str
    paths: list[str]
    vocab_size: int
    task: Task
    regex: str
    """The regular expression of the task's pattern."""
    alphabet: int
    """Number of distinct bytes in the corpus. The vocabularies of some peers contain only these bytes."""
    threads: int


Merges = Callable[[], list[bytes]]
"""A function that returns the learned tokens in order. It is called after time and memory are measured."""


def ours(module: Any, job: Job, report: dict[str, Any]) -> Merges:
    """Train with this project's trainer, and report the seconds of its phases."""

    def trained(result: Any) -> None:
        report["phases"] = {"reading and counting": result.seconds["count"], "merging": result.seconds["merge"]}

    trained_on, texts = (module.train_from_iterator, lines(job.paths)) if job.task.lines else (module.train, job.paths)
    tokenizer = trained_on(
        texts,
        job.vocab_size,
        job.task.pattern,
        (),
        tie_break=job.task.tie_break,
        threads=job.threads,
        trained=trained,
    )
    return lambda: sorted(tokenizer.mergeable_ranks, key=tokenizer.mergeable_ranks.__getitem__)[256:]


def rustbpe(module: Any, job: Job, report: dict[str, Any]) -> Merges:
    """Train with rustbpe."""
    tokenizer = module.Tokenizer()
    tokenizer.train_from_iterator(pieces(job.paths), job.vocab_size, buffer_size=256, pattern=job.regex)
    return lambda: [bytes(token) for token, _ in tokenizer.get_mergeable_ranks()][256:]


def tokenizers(module: Any, job: Job, report: dict[str, Any]) -> Merges:
    """Train with Hugging Face's tokenizers."""
    from tokenizers import Regex, models, pre_tokenizers, trainers

    tokenizer = module.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(job.regex), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=job.vocab_size,
        special_tokens=[],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(pieces(job.paths), trainer)
    return lambda: joined(json.loads(tokenizer.to_str())["model"]["merges"])


def gigabpe(module: Any, job: Job, report: dict[str, Any]) -> Merges:
    """Train with gigabpe."""
    _, merges = module.train_bpe(
        job.paths,
        job.vocab_size - 256 + job.alphabet,
        special_tokens=[],
        pretokenizer="bytelevel",
        threads=job.threads,
    )
    return lambda: joined(merges)


def gigatoken(module: Any, job: Job, report: dict[str, Any]) -> Merges:
    """Train with gigatoken."""
    source = job.paths[0] if len(job.paths) == 1 else module.TextFileSource(job.paths)
    _, merges = module.train_bpe(source, job.vocab_size, [], "huggingface")
    return lambda: [left + right for left, right in merges]


def ffbpe(module: Any, job: Job, report: dict[str, Any]) -> Merges:
    """Train with ffbpe."""
    counter = module.PreTokenizer([], pat_str=job.regex).word_counter()
    counter.add_source(pieces(job.paths))
    trainer = module.BpeTrainer([], initial_alphabet="raw", tie_break="smallest_pair_id")
    trainer.add_word_counter(counter)
    trainer.train(job.vocab_size)

    def merges() -> list[bytes]:
        vocabulary: dict[bytes, int] = trainer.vocab
        return sorted(vocabulary, key=vocabulary.__getitem__)[256:]

    return merges


def joined(merges: Sequence[tuple[str, str]]) -> list[bytes]:
    """Return the tokens of merges written in the byte-level alphabet, where each character represents a byte."""
    from bpe.formats.byte_level import byte_characters

    byte_of = {ord(character): byte for byte, character in enumerate(byte_characters())}
    return [(left + right).translate(byte_of).encode("latin-1") for left, right in merges]


@dataclass(frozen=True)
class Library:
    """A peer's distribution on PyPI, its module, its task, and the call that is measured."""

    distribution: str
    module: str
    task: Task
    train: Callable[[Any, Job, dict[str, Any]], Merges]


PEERS = {
    "ours": Library("bpe-llama", "bpe.training.trainer", Task("llama3", "bytes"), ours),
    "rustbpe": Library("rustbpe", "rustbpe", Task("llama3", "bytes"), rustbpe),
    "tokenizers": Library("tokenizers", "tokenizers", Task("llama3", "huggingface"), tokenizers),
    "gigabpe": Library("gigabpe", "gigabpe", Task("gpt2", "huggingface", lines=True), gigabpe),
    "gigatoken": Library("gigatoken", "gigatoken", Task("gpt2", "huggingface"), gigatoken),
    "ffbpe": Library("ffbpe", "ffbpe", Task("llama3", "bytes"), ffbpe),
}

# --- text as input for peers ---

# A character that is not a space, chosen by first bytes that no space character has.
VISIBLE = rb"(?:[!-~]|[\xc3-\xdf].|\xe3(?:[\x81-\xbf].|\x80[\x81-\xbf])|[\xe4-\xed]..)"
CUT = re.compile(rb"(?s:[A-Za-z](?= [A-Za-z])|" + VISIBLE + rb"\n(?!/)(?=" + VISIBLE + rb"))")
TAIL = 1 << 12  # bytes at the end of a piece that are searched for a place to cut


def pieces(paths: Sequence[str], size: int = 1 << 16) -> Iterator[str]:
    """Yield the text of files in pieces, which peers can split on several threads.

    A cut is before a space between two letters, or after a line end between two visible characters. Every pattern used
    here also splits there, regardless of the surrounding text, so the pieces have the same pretokens as the whole text.
    A piece without such a place is longer than `size` bytes.
    """
    for path in paths:
        rest = b""
        with open(path, "rb") as file:
            while block := file.read(size):
                rest += block
                end = max((match.end() for match in CUT.finditer(rest, max(0, len(rest) - TAIL))), default=0)
                if end:
                    yield rest[:end].decode()
                    rest = rest[end:]
        yield rest.decode()


def lines(paths: Sequence[str]) -> Iterator[bytes]:
    """Yield the lines of files."""
    for path in paths:
        with open(path, "rb") as file:
            yield from file


# --- the worker: one peer, one corpus, one vocabulary size ---


def work(job: Job) -> dict[str, Any]:
    """Import the peer, train, and return the seconds, the memory in MB and the merges."""
    if hasattr(os, "sched_setaffinity"):  # peers without a thread option use all processors that they see
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.threads])
    library = PEERS[job.peer]
    skip_rebuilding()
    module = importlib.import_module(library.module)
    reset_peak_memory()
    imports = memory("VmRSS")
    report: dict[str, Any] = {}
    begin = time.perf_counter()
    merges = library.train(module, job, report)
    seconds = time.perf_counter() - begin
    peak = memory("VmHWM")
    tokens = [token.decode("latin-1") for token in merges()]
    if "phases" in report:
        report["phases"]["reading"] = seconds_of_reading(job.paths)
    return {"seconds": seconds, "memory": peak - imports, "imports": imports, "merges": tokens, **report}


def seconds_of_reading(paths: Sequence[str]) -> float:
    """Return the seconds to read the files from the page cache into one buffer."""
    buffer = bytearray(BLOCK)
    begin = time.perf_counter()
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - begin


# --- the main process: jobs and their results ---


@dataclass
class Runs:
    """The measurements of all runs of one peer on one task, and how its merges differ from ours."""

    seconds: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    imports: list[float] = field(default_factory=list)
    phases: list[dict[str, float]] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    difference: str = ""
    """Description of the difference; empty if the merges equal ours in every run."""

    def add(self, result: dict[str, Any], expected: Sequence[str]) -> None:
        """Add the result of a run and compare its merges with the expected ones."""
        for name in ("seconds", "memory", "imports"):
            getattr(self, name).append(result[name])
        self.phases += [result["phases"]] if "phases" in result else []
        self.merges = result["merges"]
        self.difference = self.difference or difference(self.merges, expected)


def difference(merges: Sequence[str], expected: Sequence[str]) -> str:
    """Describe how a peer's merges differ from the expected ones. Return "" if they are equal."""
    if merges == expected:
        return ""
    pairs = zip(merges, expected, strict=False)
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(merges), len(expected)))
    missing = len(set(expected).difference(merges))
    count = f"{missing:,} of {len(expected):,} merges" if missing else "only the order"
    extra = f", {len(merges):,} merges in total" if len(merges) != len(expected) else ""
    return f"differs: {count}, from merge {first + 1:,}{extra}"


@dataclass(frozen=True)
class Corpus:
    """A named list of plain text files."""

    name: str
    paths: list[str]

    @property
    def megabytes(self) -> float:
        """The size of all files in MB."""
        return sum(os.path.getsize(path) for path in self.paths) / 1e6

    def alphabet(self) -> int:
        """Return the number of distinct bytes. Reading the whole corpus also brings it into the page cache."""
        seen = b""
        for path in self.paths:
            with open(path, "rb") as file:
                while block := file.read(BLOCK):
                    seen += bytes(set(block.translate(None, seen)))
        return len(seen)

    def beginning(self, megabytes: float, directory: Path) -> Corpus:
        """Return a corpus of the first `megabytes`: whole files, and a copy of the first part of the last one."""
        chosen: list[str] = []
        left, name = round(megabytes * 1e6), f"the first {megabytes:,g} MB"
        for path in self.paths:
            size = os.path.getsize(path)
            if size > left:
                part = directory / f"part-{left}"
                copy_beginning(path, part, left)
                return Corpus(name, [*chosen, str(part)])
            chosen.append(path)
            left -= size
        return Corpus(name, chosen)


def copy_beginning(source: str, target: Path, size: int) -> None:
    """Copy the first `size` bytes of a file, without the last character, which may be incomplete."""
    with open(source, "rb") as file, open(target, "wb") as out:
        while size > BLOCK:
            size -= out.write(file.read(BLOCK))
        block = file.read(size).rstrip(bytes(range(0x80, 0xC0)))
        out.write(block[:-1] if block[-1:] >= b"\xc0" else block)


class Comparison:
    """The runs of all peers, and of ours on the same tasks, by corpus and vocabulary size."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.runs: dict[tuple[str, int, str, Task], Runs] = {}
        self.megabytes: dict[str, float] = {}
        self.errors: dict[str, None] = {}  # an ordered set of lines

    def measure(self, corpus: Corpus, vocab_size: int, peers: Sequence[str], repeat: int) -> None:
        """Run ours first, because its merges are the reference, then the peers in turn."""
        alphabet = corpus.alphabet()
        self.megabytes[corpus.name] = corpus.megabytes
        for turn in range(repeat):
            for peer, task in turns(peers, first=turn == 0):
                show(f"run {turn + 1} of {repeat}: {corpus.name}, {vocab_size:,} tokens, {peer} ({task})")
                job = Job(peer, corpus.paths, vocab_size, task, regex_of(task), alphabet, self.threads)
                self.collect(corpus.name, job, run_worker(__file__, asdict(job), self.threads))
        show()

    def collect(self, corpus: str, job: Job, result: dict[str, Any]) -> None:
        """Add the result of a job, or its error."""
        own = self.runs.get((corpus, job.vocab_size, "ours", job.task))
        if "error" not in result and own is None and job.peer != "ours":
            result = {"error": "ours failed, so there is nothing to compare with"}
        if "error" in result:
            self.errors[f"{job.peer} ({job.task}), {corpus}, {job.vocab_size:,} tokens: {result['error']}"] = None
            return
        runs = self.runs.setdefault((corpus, job.vocab_size, job.peer, job.task), Runs())
        runs.add(result, own.merges if own else result["merges"])

    def table(self) -> str:
        """Return a block for each corpus and vocabulary size, with a line for each peer."""
        text = []
        previous = None
        for (corpus, vocab_size, peer, task), runs in sorted(self.runs.items(), key=lambda run: self.place(run[0])):
            whole = replace(task, lines=False)
            if peer == "ours" and task != whole:  # it ran only for its merges
                continue
            if (corpus, vocab_size) != previous:
                previous = corpus, vocab_size
                threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
                head = f"{corpus}, {number(self.megabytes[corpus])} MB, {vocab_size:,} tokens, {threads}"
                titles = columns("seconds", "median", "memory, MB", "imports", "seconds/ours", "memory/ours")
                text += ["", f"{head:<46}{titles}"]
            own = self.runs.get((corpus, vocab_size, "ours", whole))
            values = [min(runs.seconds), median(runs.seconds), max(runs.memory), max(runs.imports)]
            line = f"  {peer:<11}{task!s:<33}{columns(*map(number, values))}"
            if peer == "ours":
                line += f"  {runs.difference}"
            elif runs.difference or own is None:
                line += columns("-", "-") + f"  {runs.difference}"
            else:
                line += columns(number(values[0] / min(own.seconds)), number(values[2] / max(own.memory)))
                line += f"  the same {len(runs.merges):,} merges"
            text.append(line.rstrip())
        return "\n".join(text[1:])

    def place(self, key: tuple[str, int, str, Task]) -> tuple[int, int, int]:
        """Return the sort key of a line of the table: corpus, vocabulary size, peer."""
        corpus, vocab_size, peer, _ = key
        return list(self.megabytes).index(corpus), vocab_size, list(PEERS).index(peer)

    def rows(self) -> list[dict[str, Any]]:
        """Return all runs as rows for JSON."""
        return [
            {"corpus": corpus, "MB": self.megabytes[corpus], "vocab_size": vocab_size, "peer": peer}
            | {"threads": self.threads, **asdict(runs), "task": asdict(task), "merges": len(runs.merges)}
            for (corpus, vocab_size, peer, task), runs in self.runs.items()
        ]


def columns(*values: str) -> str:
    """Return values as columns of a table."""
    return "".join(f"{value:>13}" for value in values)


def turns(peers: Sequence[str], first: bool) -> list[tuple[str, Task]]:
    """Return who trains on which task in one turn.

    Ours trains on each task, then the peers follow. Only in the first turn, ours also trains on lines, for its merges.
    """
    tasks = dict.fromkeys(PEERS[peer].task for peer in peers)
    whole = dict.fromkeys(replace(task, lines=False) for task in tasks)
    by_lines = [task for task in tasks if task.lines] if first else []
    return [("ours", task) for task in (*whole, *by_lines)] + [(p, PEERS[p].task) for p in peers if p != "ours"]


def regex_of(task: Task) -> str:
    """Return the regular expression of a task's pattern."""
    from bpe.patterns import find_pattern

    return find_pattern(task.pattern).text


# --- the output of the modes ---


def phases(comparison: Comparison) -> str:
    """Return a table of the shares of reading, counting and merging in the best run of ours."""
    text = [f"{'':<24}" + columns("MB", "tokens", "seconds", "reading", "counting", "merging")]
    for (corpus, vocab_size, _, _), runs in comparison.runs.items():
        seconds, found = min(zip(runs.seconds, runs.phases, strict=True), key=lambda run: run[0])
        shares = [found["reading"], found["reading and counting"] - found["reading"], found["merging"]]
        values = [number(comparison.megabytes[corpus]), f"{vocab_size:,}", number(seconds)]
        text.append(f"{corpus:<24}" + columns(*values, *(f"{share / seconds:.0%}" for share in shares)))
    return "\n".join(text)


def counting(comparison: Comparison) -> str:
    """Return a table of the MB of text that the best run counts per second."""
    text = [f"{'':<24}" + columns("MB", "MB/s", "no reading")]
    for (corpus, *_), runs in comparison.runs.items():
        size = comparison.megabytes[corpus]
        seconds = min(found["reading and counting"] for found in runs.phases)
        alone = min(found["reading and counting"] - found["reading"] for found in runs.phases)
        text.append(f"{corpus:<24}" + columns(number(size), number(size / seconds), number(size / alone)))
    return "\n".join(text)


def growth(comparison: Comparison) -> str:
    """Return a table of time and memory by the size of the corpus and of the vocabulary."""
    text = [f"{'':<36}" + columns("MB", "tokens", "seconds", "MB/s", "memory, MB")]
    for (corpus, vocab_size, peer, task), runs in comparison.runs.items():
        size, seconds = comparison.megabytes[corpus], min(runs.seconds)
        values = [f"{vocab_size:,}", *map(number, (seconds, size / seconds, max(runs.memory)))]
        text.append(f"{f'{peer} ({task})':<36}{columns(number(size), *values)}  {runs.difference}".rstrip())
    return "\n".join(text)


def measure_processes(
    corpora: Sequence[Corpus], arguments: argparse.Namespace, threads: int, directory: Path
) -> list[dict[str, Any]]:
    """Measure whole processes on each corpus with each vocabulary size, and return the rows of the table."""
    rows: list[dict[str, Any]] = []
    for corpus, vocab_size in product(corpora, arguments.vocab_sizes):
        show(f"{corpus.name}, {vocab_size:,} tokens")
        training = processes.Training(corpus.paths, vocab_size, corpus.alphabet(), threads)
        found = processes.measure(training, arguments.peers, arguments.repeat, directory)
        expected = found["ours"].merges
        for peer, runs in found.items():
            missing = len(set(expected).difference(runs.merges))
            same = "the same merges" if runs.merges == expected else f"differs: {missing:,} of {len(expected):,} merges"
            rows.append(
                {"corpus": corpus.name, "MB": corpus.megabytes, "vocab_size": vocab_size, "peer": peer}
                | {"threads": threads, "seconds": runs.seconds, "cpu": runs.cpu, "memory": runs.memory}
                | {"merges": len(runs.merges), "difference": "" if peer == "ours" else same}
            )
    show()
    return rows


def measure_growth(comparison: Comparison, corpus: Corpus, arguments: argparse.Namespace, directory: Path) -> None:
    """Run the peers on beginnings of the corpus, and with all vocabulary sizes."""
    sizes = [size for size in arguments.megabytes if size < corpus.megabytes]
    sizes += [corpus.megabytes] if len(sizes) < len(arguments.megabytes) else []
    vocab_sizes = arguments.vocab_sizes
    points = [(size, vocab_sizes[len(vocab_sizes) // 2]) for size in sizes]
    points += [(sizes[len(sizes) // 2], vocab_size) for vocab_size in vocab_sizes]
    for size, vocab_size in dict.fromkeys(points):
        part = corpus.beginning(size, directory)
        comparison.measure(part, vocab_size, arguments.peers, arguments.repeat)
        for path in set(part.paths) - set(corpus.paths):
            os.unlink(path)


def plot(rows: Sequence[Mapping[str, Any]], output: Path, dark: bool = False) -> None:
    """Plot seconds and memory by corpus size, and seconds by vocabulary size, with logarithmic axes.

    From the first point of ours, a dashed line shows proportional growth and a dotted line no growth.
    """
    from bpe.drawing import PictureSettings, save

    settings = PictureSettings((output.suffix[1:],), dark)
    save(panels(settings.look, rows), output.with_suffix(""), settings)


def panels(look: Any, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return the figure of `plot`."""
    from bpe.drawing import figure_of, styled

    @styled
    def draw(look: Any) -> Any:
        figure = figure_of(14, 4.4, "Training time and memory as the corpus and the vocabulary grow")
        for axes, (x, y, fixed) in zip(figure.subplots(1, 3), PANELS, strict=True):
            held = most_frequent([row[fixed] for row in rows])
            curves: dict[str, list[tuple[float, float]]] = {}
            for row in rows:
                if row[fixed] == held and not row["difference"]:
                    curves.setdefault(f"{row['peer']} ({Task(**row['task'])})", []).append((row[x], min(row[y])))
            for (name, points), color in zip(curves.items(), cycle(look.series), strict=False):
                axes.plot(*zip(*sorted(points), strict=True), marker="o", color=color, label=name)
            first = sorted(next(iter(curves.values()), [(1, 1)]))  # ours comes first
            (left, start), (right, _) = first[0], first[-1]
            axes.plot([left, right], [start, start * right / left], "--", color=look.muted, label="proportional")
            axes.plot([left, right], [start, start], ":", color=look.muted, label="flat")
            axes.set(xscale="log", yscale="log", xlabel=LABELS[x], ylabel=LABELS[y])
            axes.set_title(f"{number(held)} {LABELS[fixed]}")
        figure.axes[0].legend()
        return figure

    return draw(look)


PANELS = [("MB", "seconds", "vocab_size"), ("MB", "memory", "vocab_size"), ("vocab_size", "seconds", "MB")]
LABELS = {"MB": "MB of text", "seconds": "seconds", "memory": "peak memory, MB", "vocab_size": "tokens"}


PRINTED = {"peers": Comparison.table, "counting": counting, "phases": phases, "growth": growth}


def most_frequent(values: Sequence[Any]) -> Any:
    """Return the most frequent value."""
    return max(values, key=values.count)


def find_corpora(sources: Sequence[str], directory: Path) -> list[Corpus]:
    """Return each source as plain text files: the file itself, or all files in a directory.

    Compressed files and .jsonl files are first written to `directory` as plain text.
    """
    from bpe.corpus import documents

    found: list[Corpus] = []
    for name, source in named(sources).items():
        paths = []
        top = Path(source)
        files = sorted(p for p in top.rglob("*") if p.is_file() and p.name[0] != ".") if top.is_dir() else [top]
        for place, path in enumerate(files):
            if path.suffix in (".gz", ".xz", ".zst", ".jsonl"):
                plain = directory / f"{len(found)}-{place}.txt"
                plain.write_bytes(b"\n".join(documents(path)))
                path = plain
            paths.append(str(path))
        found.append(Corpus(name, paths))
    return found


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""

    def numbers(value: str) -> list[int]:
        return [int(part) for part in value.split(",")]

    def megabytes(value: str) -> list[float]:
        return sorted(float(part) for part in value.split(","))

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="*", help="text files, plain, .xz or .gz, or directories (default: corpora/)")
    parser.add_argument("--mode", choices=MODES, default="peers", help="what to measure (default: peers)")
    parser.add_argument(
        "--peers", type=choice(list(PEERS)), help="peers, separated by commas (default: all that are installed)"
    )
    parser.add_argument(
        "--vocab-sizes", type=numbers, metavar="N,...", help="vocabulary sizes: 256 bytes plus the number of merges"
    )
    parser.add_argument(
        "--megabytes", type=megabytes, default=MEGABYTES, metavar="N,...", help="mode growth: corpus sizes in MB"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads (default: all processors, or 1 in mode counting)"
    )
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="run everything N times (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to FILE")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="mode growth: draw the results to FILE, a .png, .svg or .pdf"
    )
    parser.add_argument("--dark", action="store_true", help="draw them on a dark background")
    add_kernel_option(parser)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.mode == "processes":
        arguments.peers = arguments.peers or list(processes.PROCESSES)
        if "ours" not in arguments.peers or {*arguments.peers} - {*processes.PROCESSES}:
            parser.error("--mode processes compares ours with gigabpe; give --peers ours, or ours,gigabpe")
    if arguments.plot and arguments.mode != "growth":
        parser.error("--plot needs --mode growth")
    if arguments.plot and arguments.plot.suffix not in (".png", ".svg", ".pdf"):
        parser.error(f"--plot {arguments.plot}: unknown suffix; use .png, .svg or .pdf")
    if arguments.dark and not arguments.plot:
        parser.error("--dark needs --plot FILE")
    return arguments


def main() -> None:
    """Run the chosen mode and print its table."""
    arguments = parse_arguments()
    if arguments.worker:
        job = json.loads(arguments.worker)
        print("\n" + json.dumps(work(Job(**job | {"task": Task(**job["task"])}))))
        return

    mode = arguments.mode
    chosen = arguments.peers or (list(PEERS) if mode == "peers" else ["ours"])
    machine, versions = introduce({name: PEERS[name].distribution for name in chosen})
    arguments.peers = list(versions)
    arguments.vocab_sizes = sorted(arguments.vocab_sizes or VOCAB_SIZES[mode])
    comparison = Comparison(arguments.threads or (1 if mode == "counting" else os.cpu_count() or 1))
    with tempfile.TemporaryDirectory() as name:
        corpora = find_corpora(arguments.corpora or [str(ROOT / "corpora")], Path(name))
        if mode == "processes":
            rows = measure_processes(corpora, arguments, comparison.threads, Path(name))
        elif mode == "growth":
            every = Corpus("all", [path for corpus in corpora for path in corpus.paths])
            measure_growth(comparison, every, arguments, Path(name))
        else:
            for corpus, vocab_size in product(corpora, arguments.vocab_sizes):
                comparison.measure(corpus, vocab_size, arguments.peers, arguments.repeat)
    if mode == "processes":
        print("", processes.table(rows), sep="\n")
    else:
        print("", PRINTED[mode](comparison), sep="\n")
        rows = comparison.rows()
    if arguments.json:
        results = {"mode": mode, "machine": machine, "versions": versions, "results": rows}
        arguments.json.write_text(json.dumps(results, indent=1))
    if arguments.plot and rows:
        plot(rows, arguments.plot, arguments.dark)
    if comparison.errors:
        sys.exit("\n".join(comparison.errors))


if __name__ == "__main__":
    main()
