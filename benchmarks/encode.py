"""Compare encoding and decoding with other tokenizers, with Llama 3's vocabulary, in one run, on your own text.

    python benchmarks/encode.py                                    # corpora/, a short run
    python benchmarks/encode.py big.txt code.txt.xz --modes all --repeat 3
    python benchmarks/encode.py big.txt --modes documents --peers ours,tiktoken,gigatoken --json results.json

How to read the table: each column is a peer and each row a measure. The last number is the ratio of ours to the best
other peer whose ids equal tiktoken's. Rates are in MB of UTF-8 per second, where more is better; for times and memory,
less is better. ``!`` marks a peer whose ids DIFFER from tiktoken's on that text. Such a peer does different work, so it
never counts as the best.

The modes. Each runs in a separate process for each peer, text and kind of output:

    documents  one call for each document of 4,000 characters; "cold" is the first pass after loading, "warm" the best
               of three more; ids as lists, and as numpy arrays from peers that return them
    files      the same with the whole text in one call
    threads    the peer's own call for many documents at once, on all processors
    short      one call with 2 or 100 characters, in microseconds, the median of many calls
    decode     the ids of those documents, as lists (or arrays) -> str; best of three after one warm-up pass
    load       the time to import the peer's module, with numpy already imported, and to read the vocabulary; the memory
               that both add; and the peak memory while the texts are encoded document by document, with no ids kept

Ids are compared document by document after the first pass, outside the timed section. Special tokens are removed from
the text first, because some peers always recognize them. Timings are noisy: --repeat runs everything again, with the
peers in turn, and the table shows the best value of each. Compare the ratios rather than the absolute numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import re
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
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

WARM_PASSES = 3
MODES = ("documents", "files", "threads", "short", "decode", "load")
SHORT_RUN = ("documents", "short", "decode", "load")
SHORT_TEXTS = {
    "2 bytes": "Hi",
    "100 bytes": "Could you look at the report that I sent on Monday, and tell me by 12:30 whether the figures add up?",
}

# --- the peers ---


@dataclass(frozen=True)
class Files:
    """Llama 3's vocabulary in the formats that peers load."""

    ranks: str
    """Path of the vocabulary in tiktoken's format."""
    json: str
    """Path of a tokenizer.json whose merges are all pairs of tokens that join to a token, as converters write it."""
    pattern: str
    special_tokens: dict[str, int]


@dataclass(frozen=True)
class Peer:
    """The calls of a library with the vocabulary loaded. None marks a call that it does not have.

    All calls treat special tokens as ordinary text. `batch_numpy` returns the ids of all documents and the offset of
    each document, as `Tokenizer.encode_flat` does.
    """

    decode: Callable[[Any], str]
    encode_list: Callable[[str], list[int]]
    encode_numpy: Callable[[str], Any] | None = None
    batch_list: Callable[[list[str]], list[list[int]]] | None = None
    batch_numpy: Callable[[list[str]], tuple[Any, Any]] | None = None
    decodes_numpy: bool = False


def ours(module: Any, files: Files, threads: int) -> Peer:
    """Load this project's tokenizer."""
    tokenizer = module.Tokenizer.from_file(files.ranks)
    return Peer(
        tokenizer.decode,
        tokenizer.encode_ordinary,
        lambda text: tokenizer.encode_to_numpy(text, disallowed_special=()),
        lambda texts: tokenizer.encode_ordinary_batch(texts, num_threads=threads),
        lambda texts: tokenizer.encode_flat(texts, num_threads=threads),
        decodes_numpy=True,
    )


def tiktoken(module: Any, files: Files, threads: int) -> Peer:
    """Load tiktoken."""
    from tiktoken.load import load_tiktoken_bpe

    ranks = load_tiktoken_bpe(files.ranks)
    encoding = module.Encoding(
        "llama3", pat_str=files.pattern, mergeable_ranks=ranks, special_tokens=files.special_tokens
    )
    return Peer(
        encoding.decode,
        encoding.encode_ordinary,
        lambda text: encoding.encode_to_numpy(text, disallowed_special=()),
        lambda texts: encoding.encode_ordinary_batch(texts, num_threads=threads),
    )


def tokenizers(module: Any, files: Files, threads: int) -> Peer:
    """Load Hugging Face's tokenizers."""
    tokenizer = module.Tokenizer.from_file(files.json)
    return Peer(
        lambda ids: tokenizer.decode(ids, skip_special_tokens=False),
        lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
        batch_list=lambda texts: [
            encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ],
    )


def gigatoken(module: Any, files: Files, threads: int) -> Peer:
    """Load gigatoken."""
    tokenizer = module.Tokenizer(files.json)

    def batch_numpy(texts: list[str]) -> tuple[Any, Any]:
        layout = tokenizer.encode_batch(texts, parallel=threads > 1).layout
        return layout.content.data, layout.offsets.data

    return Peer(
        lambda ids: tokenizer.decode(ids).decode("utf-8", "replace"),
        lambda text: tokenizer.encode(text).tolist(),  # as fast as its encode_batch_list, faster than its as_tiktoken
        tokenizer.encode,
        lambda texts: tokenizer.encode_batch_list(texts, parallel=threads > 1),
        batch_numpy,
        decodes_numpy=True,
    )


def fastokens(module: Any, files: Files, threads: int) -> Peer:
    """Load fastokens."""
    tokenizer = module.Tokenizer.from_file(files.json)  # its from_tiktoken refuses Llama 3's ranks
    return Peer(
        tokenizer.decode,
        lambda text: tokenizer.encode_ordinary(text).ids,
        lambda text: np.frombuffer(tokenizer.encode_batch_flat([text])[0], np.uint32),
        lambda texts: [encoding.ids for encoding in tokenizer.encode_batch(texts)],
        lambda texts: arrays(*tokenizer.encode_batch_flat(texts)),
    )


def quicktok(module: Any, files: Files, threads: int) -> Peer:
    """Load quicktok."""
    encoding = module.get_encoding(
        "llama3"
    )  # its own copy of the vocabulary; with ours, it differs on the same number of documents
    return Peer(
        encoding.decode,
        encoding.encode_ordinary,
        lambda text: encoding.encode_batch([text], 1)[0],
        batch_numpy=lambda texts: encoding.encode_batch(texts, threads),
    )


def splintr(module: Any, files: Files, threads: int) -> Peer:
    """Load splintr."""
    tokenizer = module.Tokenizer(files.ranks, files.pattern, files.special_tokens)
    return Peer(
        tokenizer.decode,
        tokenizer.encode_ordinary,
        lambda text: np.frombuffer(tokenizer.encode_flat(text), np.uint32),
        tokenizer.encode_batch,
        lambda texts: arrays(*tokenizer.encode_batch_flat(texts)),
    )


def arrays(ids: bytes, offsets: bytes) -> tuple[Any, Any]:
    """Return the ids and offsets of a batch that is given as bytes."""
    return np.frombuffer(ids, np.uint32), np.frombuffer(offsets, np.uint64)


@dataclass(frozen=True)
class Library:
    """A peer's distribution on PyPI, its module, and the function that loads the vocabulary into it."""

    distribution: str
    module: str
    load: Callable[[Any, Files, int], Peer]


PEERS = {
    "ours": Library("bpe-llama", "bpe", ours),
    "tiktoken": Library("tiktoken", "tiktoken", tiktoken),
    "tokenizers": Library("tokenizers", "tokenizers", tokenizers),
    "gigatoken": Library("gigatoken", "gigatoken", gigatoken),
    "fastokens": Library("fastokens", "fastokens", fastokens),
    "quicktok": Library("quicktok-v1", "quicktok", quicktok),
    "splintr": Library("splintr-rs", "splintr", splintr),
}

# --- the worker: one peer, one mode, one text, one kind of output ---


@dataclass(frozen=True)
class Job:
    """One measurement: a mode and a peer, with its texts and settings."""

    mode: str
    peer: str
    output: str
    """ "list" or "numpy"; empty for modes without a cold pass, where one process measures both."""
    texts: dict[str, str]
    """The path of each corpus by its name."""
    document: int
    """Characters per document; 0 for the whole text."""
    threads: int
    files: dict[str, Any]

    def documents(self) -> list[str]:
        """Read the documents of all texts."""
        return [text for path in self.texts.values() for text in read_documents(path, self.document)]


def work(job: Job) -> dict[str, Any]:
    """Load the peer and run the measurement of a job.

    Returns:
        "load": the measures of loading; "rows": values by row; "digests": hashes of the ids. "rows" and "digests" are
        missing when the peer does not have the requested output.
    """
    library = PEERS[job.peer]
    skip_rebuilding()
    empty = memory("VmRSS")
    begin = time.perf_counter()
    module = importlib.import_module(library.module)
    imported = time.perf_counter()
    peer = library.load(module, Files(**job.files), job.threads)
    loaded = time.perf_counter()
    load = {
        "import, ms": 1e3 * (imported - begin),
        "load, ms": 1e3 * (loaded - imported),
        "memory, MB": memory("VmRSS") - empty,
    }
    if job.mode == "load":
        return {"load": load | {"peak memory, MB": highest_memory(peer, job) - empty}}
    return {"load": load, **MEASURES[job.mode](peer, job)}


def highest_memory(peer: Peer, job: Job) -> float:
    """Return the peak memory of this process while it encodes the documents, less the memory of the text, in MB."""
    highest = memory("VmRSS")
    for path in job.texts.values():
        before = memory("VmRSS")
        texts = read_documents(path, job.document)
        held = memory("VmRSS") - before
        reset_peak_memory()
        for text in texts:
            peer.encode_list(text)
        highest = max(highest, memory("VmHWM") - held)
        del texts
    return highest


def measure_documents(peer: Peer, job: Job) -> dict[str, Any]:
    """Measure one call for each document."""
    encode = peer.encode_list if job.output == "list" else peer.encode_numpy
    if encode is None:
        return {}
    texts = job.documents()
    return measure_passes(job, texts, lambda: [encode(text) for text in texts])


def measure_batch(peer: Peer, job: Job) -> dict[str, Any]:
    """Measure the peer's call for many documents."""
    encode = peer.batch_list if job.output == "list" else peer.batch_numpy
    if encode is None:
        return {}
    texts = job.documents()
    return measure_passes(job, texts, lambda: encode(texts))


def measure_passes(job: Job, texts: list[str], one_pass: Callable[[], Any]) -> dict[str, Any]:
    """Time one cold and several warm passes, in MB/s, and hash the ids of the first pass."""
    begin = time.perf_counter()
    result = one_pass()
    seconds = [time.perf_counter() - begin]
    digests = digests_of(rows_of(result))
    del result
    for _ in range(WARM_PASSES):
        begin = time.perf_counter()
        result = one_pass()
        seconds.append(time.perf_counter() - begin)
        del result
    size = megabytes(texts)
    rows = {f"{job.output}, cold": size / seconds[0], f"{job.output}, warm": size / min(seconds[1:])}
    return {"rows": rows, "digests": digests}


def measure_short(peer: Peer, job: Job) -> dict[str, Any]:
    """Measure calls with short texts, in microseconds."""
    rows = {}
    digests = []
    for output, encode in (("list", peer.encode_list), ("numpy", peer.encode_numpy)):
        if encode is not None:
            digests += digests_of(map(encode, SHORT_TEXTS.values()))
            for name, text in SHORT_TEXTS.items():
                timer = timeit.Timer("encode(text)", globals={"encode": encode, "text": text})
                rows[f"{output}, {name}"] = 1e6 * median(timer.repeat(repeat=101, number=200)) / 200
    return {"rows": rows, "digests": digests}


def measure_decoding(peer: Peer, job: Job) -> dict[str, Any]:
    """Measure decoding in MB/s, and check that it returns the original texts."""
    texts = job.documents()
    ids = [peer.encode_list(text) for text in texts]
    inputs: dict[str, list[Any]] = {"list": list(ids)}
    if peer.decodes_numpy:
        inputs["numpy"] = [np.array(row, np.uint32) for row in ids]
    rows = {}
    for kind, each in inputs.items():
        seconds = []
        for _ in range(1 + WARM_PASSES):
            begin = time.perf_counter()
            decoded = [peer.decode(row) for row in each]
            seconds.append(time.perf_counter() - begin)
            if decoded != texts:
                raise ValueError("decoding does not return the original text")
            del decoded
        rows[kind] = megabytes(texts) / min(seconds[1:])
    return {"rows": rows, "digests": digests_of(ids)}


MEASURES = {
    "documents": measure_documents,
    "files": measure_documents,
    "threads": measure_batch,
    "short": measure_short,
    "decode": measure_decoding,
}


def read_documents(path: str, size: int) -> list[str]:
    """Read a text in documents of `size` characters, or as a whole if `size` is 0."""
    text = Path(path).read_bytes().decode()
    return [text[start : start + size] for start in range(0, len(text), size)] if size else [text]


def megabytes(texts: Iterable[str]) -> float:
    """Return the size of texts in UTF-8, in MB."""
    return sum(len(text.encode()) for text in texts) / 1e6


def rows_of(result: Any) -> Iterable[Any]:
    """Return the ids of each document of a batch, given as lists or as numpy arrays."""
    if isinstance(result, list):
        return result
    ids, offsets = np.asarray(result[0]), np.asarray(result[1])
    return np.split(ids, offsets[1:-1].astype(np.int64))


def digests_of(rows: Iterable[Any]) -> list[str]:
    """Return a hash of each document's ids. Lists and arrays give the same hash."""
    return [hashlib.blake2b(np.asarray(row, np.uint32).tobytes(), digest_size=8).hexdigest() for row in rows]


# --- the main process: jobs and their results ---


@dataclass
class Cell:
    """The values of one peer in one row."""

    values: list[float]
    differing: int = 0
    """Number of documents whose ids differ from tiktoken's."""


class Results:
    """Rows of measures in the order of their first value, with remarks and errors."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], dict[str, Cell]] = {}
        self.remarks: dict[str, None] = {}  # an ordered set of lines
        self.errors: dict[str, None] = {}

    def add(self, section: str, row: str, peer: str, value: float, differing: int) -> None:
        """Add a value of a peer to a row."""
        cell = self.rows.setdefault((section, row), {}).setdefault(peer, Cell([]))
        cell.values.append(value)
        cell.differing = max(cell.differing, differing)

    def add_scaling(self, threads: int) -> None:
        """Add rows with the speed-up of ours on all threads over one thread."""
        for (section, row), cells in list(self.rows.items()):
            single = self.rows.get((section, row.replace(f"{threads} threads", "1 thread")))
            if f" {threads} threads, " in row and single and "ours" in single and "ours" in cells:
                speed_up = max(cells["ours"].values) / max(single["ours"].values)
                self.add(f"{threads} threads over 1, speed-up", row, "ours", speed_up, 0)

    def table(self, peers: Sequence[str]) -> str:
        """Return the rows as a table with a column for each peer."""
        lines = []
        previous = ""
        for (section, row), cells in sorted(self.rows.items(), key=lambda item: item[0][0] == "load"):
            if section != previous:
                lines += ["", f"{section:<44}" + "".join(f"{peer:>12}" for peer in peers) + f"{'ours/best':>11}"]
                previous = section
            less = section.startswith(("short", "load"))  # microseconds, milliseconds, MB
            best = {peer: (min if less else max)(cell.values) for peer, cell in cells.items()}
            line = f"  {row:<42}"
            for peer in peers:
                mark = "!" if peer in cells and cells[peer].differing else " "
                line += f"{number(best[peer]) + mark if peer in best else '- ':>12}"
            others = [value for peer, value in best.items() if peer != "ours" and not cells[peer].differing]
            if "ours" in best and others:
                ratio = min(others) / best["ours"] if less else best["ours"] / max(others)
                line += f"{ratio:>11.2f}"
            lines.append(line.rstrip())
        return "\n".join(lines)


def run(job: Job) -> dict[str, Any]:
    """Run `work` in a new process. The result has the key "error" when it fails."""
    # Without this variable, tiktoken caches the ranks outside the temporary directory.
    return run_worker(__file__, asdict(job), job.threads, TIKTOKEN_CACHE_DIR="")


def jobs_of(
    modes: Sequence[str], peers: Sequence[str], texts: dict[str, str], document: int, threads: int, files: Files
) -> list[tuple[str, Job]]:
    """Return the jobs, each with the name of its text. The peers take turns within each measure."""
    found = []
    for mode in modes:
        inputs = {name: {name: path} for name, path in texts.items()}
        if mode in ("short", "load"):
            inputs = {"": texts}
        outputs = ("list", "numpy") if mode in ("documents", "files", "threads") else ("",)
        for (name, chosen), output in product(inputs.items(), outputs):
            for peer in peers:
                counts = {1, threads} if (mode, peer) == ("threads", "ours") else {threads if mode == "threads" else 1}
                for count in sorted(counts):
                    size = 0 if mode == "files" else document
                    found.append((name, Job(mode, peer, output, chosen, size, count, asdict(files))))
    return found


def collect(results: Results, name: str, job: Job, result: dict[str, Any], expected: list[str] | None) -> None:
    """Add the result of a job to the rows of its section."""
    if "error" in result:
        results.errors[f"{job.peer}, {job.mode}: {result['error']}"] = None
        return
    digests = result.get("digests", [])
    differing = 0
    if expected:
        differing = sum(a != b for a, b in zip(digests, cycle(expected)))
        if len(digests) % len(expected):  # a document is missing or extra
            differing = len(digests)
    elif digests:
        results.remarks[f"{job.mode} {name}: tiktoken crashes on this text; ids were not compared"] = None
    if differing:
        line = f"{job.peer}, {job.mode} {name}: ids DIFFER from tiktoken's in {differing} of {len(digests)} texts"
        results.remarks[line] = None
    one = "1 thread" if job.threads == 1 else f"{job.threads} threads"
    section = {
        "documents": f"documents of {job.document:,} characters, MB/s",
        "files": "whole text in one call, MB/s",
        "threads": "many documents in one call, MB/s",
        "short": "short call, µs",
        "decode": "decode documents to str, MB/s",
    }.get(job.mode, "")
    for row, value in result.get("rows", {}).items():
        prefix = f"{name} {one}, " if job.mode == "threads" else f"{name} "
        results.add(section, (prefix + row).strip(), job.peer, value, differing)
    for measure, value in result["load"].items():
        if value == value:  # memory is NaN on systems where it is unknown
            results.add("load", measure, job.peer, value, 0)


def reference_digests(job: Job, files: Files) -> list[str] | None:
    """Return hashes of tiktoken's ids for a job's documents, or None in mode "load" and when tiktoken crashes."""
    import tiktoken as module

    if job.mode == "load":
        return None
    encode = tiktoken(module, files, 1).encode_list
    try:
        return digests_of(map(encode, SHORT_TEXTS.values() if job.mode == "short" else job.documents()))
    except BaseException as error:  # its regex engine panics on very long runs; PanicException is not an Exception
        if type(error).__name__ != "PanicException":
            raise
        return None


# --- the inputs ---


def write_files(directory: Path) -> Files:
    """Write Llama 3's vocabulary in the formats that peers load."""
    from bpe import Tokenizer

    tokenizer = Tokenizer.from_name("llama3")
    ranks, json_path = directory / "llama3.model", directory / "tokenizer.json"
    tokenizer.save(ranks)
    write_tokenizer_json(tokenizer, json_path)
    return Files(str(ranks), str(json_path), tokenizer.pattern.text, tokenizer.special_tokens)


def write_tokenizer_json(tokenizer: Any, path: Path) -> None:
    """Write a tokenizer.json whose merges are all pairs of tokens that join to a token, in order of rank."""
    from bpe.formats.byte_level import byte_characters

    tokenizer.save(path)
    data = json.loads(path.read_text("utf-8"))
    characters = byte_characters()
    ranks = tokenizer.mergeable_ranks

    def text(token: bytes) -> str:
        return token.decode("latin-1").translate(characters)

    data["model"]["merges"] = [
        [text(token[:cut]), text(token[cut:])]
        for token in ranks
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    ]
    path.write_text(json.dumps(data, ensure_ascii=False), "utf-8")


def write_texts(sources: Sequence[str], directory: Path, special_tokens: Iterable[str]) -> dict[str, str]:
    """Write each source (a file, plain, .xz or .gz, or a directory) as one text file without special tokens.

    Returns:
        The path of each text by the name of its source.
    """
    from bpe.corpus import documents

    special = re.compile("|".join(map(re.escape, special_tokens)))
    texts = {}
    for place, (name, source) in enumerate(named(sources).items()):
        text = "\n".join(content.decode("utf-8", "replace") for content in documents(source))
        path = directory / f"text-{place}"
        path.write_bytes(special.sub("", text).encode())
        texts[name] = str(path)
    return texts


def measure_all(arguments: argparse.Namespace, peers: Sequence[str]) -> Results:
    """Write the inputs, run all jobs, and collect their results."""
    results = Results()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        files = write_files(directory)
        texts = write_texts(arguments.corpora or [str(ROOT / "corpora")], directory, files.special_tokens)
        jobs = jobs_of(arguments.modes, peers, texts, arguments.document, arguments.threads, files)
        expected: dict[tuple[str, str], list[str] | None] = {}
        for turn, (place, (corpus, job)) in product(range(arguments.repeat), enumerate(jobs, 1)):
            show(f"run {turn + 1}, {place} of {len(jobs)}: {job.peer}, {job.mode} {corpus} {job.output}")
            if (corpus, job.mode) not in expected:
                expected[corpus, job.mode] = reference_digests(job, files)
            collect(results, corpus, job, run(job), expected[corpus, job.mode])
    show()
    results.add_scaling(arguments.threads)
    return results


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="*", help="text files, plain, .xz or .gz, or directories (default: corpora/)")
    parser.add_argument(
        "--peers", type=choice(list(PEERS)), help="peers, separated by commas (default: all that are installed)"
    )
    parser.add_argument(
        "--modes",
        type=choice(MODES),
        default=SHORT_RUN,
        help=f"modes, separated by commas, or all (default: {','.join(SHORT_RUN)})",
    )
    parser.add_argument(
        "--document", type=int, default=4000, metavar="N", help="characters per document (default: 4000)"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="threads in mode threads (default: all processors)",
    )
    parser.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="run everything N times and show the best (default: 1)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to FILE")
    add_kernel_option(parser)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(work(Job(**json.loads(arguments.worker)))))
        return

    machine, versions = introduce({name: PEERS[name].distribution for name in arguments.peers or PEERS})
    peers = list(versions)
    results = measure_all(arguments, peers)
    print(results.table(peers))
    print("", *results.remarks, sep="\n")
    if arguments.json:
        rows = [
            {"section": section, "row": row, "peer": peer, **asdict(cell)}
            for (section, row), cells in results.rows.items()
            for peer, cell in cells.items()
        ]
        arguments.json.write_text(json.dumps({"machine": machine, "versions": versions, "results": rows}, indent=1))
    if results.errors:
        sys.exit("\n".join(results.errors))


if __name__ == "__main__":
    main()
