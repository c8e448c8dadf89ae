"""Compare the rate of writing shards with the rate of encoding their text, on your own text.

    python benchmarks/shards.py                                   # corpora/prose.txt, a few seconds
    python benchmarks/shards.py english.txt.xz --megabytes 500 --document-bytes 2000 --json results.json

Each text is cut at line ends into documents and repeated up to --megabytes in a .jsonl file. The columns:

    encoder     `encode_flat` of all batches, already in memory, in MB of text per second
    shards      `write_shards` of the file, from reading it to the last fsync, in MB of text per second
    share       the second rate divided by the first, the median of all turns
    memory      the peak memory of the process less its memory before `write_shards`, in MB
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from common import (
    ROOT,
    add_kernel_option,
    describe_machine,
    memory,
    number,
    reset_peak_memory,
    run_worker,
    show,
    skip_rebuilding,
)

COLUMNS = ("text", "MB", "documents", "encoder", "shards", "share", "memory")


def worker(job: dict[str, Any]) -> dict[str, float]:
    """Measure one side, "encoder" or "shards", in this process."""
    skip_rebuilding()
    from bpe import Tokenizer
    from bpe.corpus import read_corpus
    from bpe.locate import locate
    from bpe.shards import ShardSources, write_shards

    path = locate(job["tokenizer"])
    tokenizer = Tokenizer.from_file(path)
    tokenizer.encode_flat(["warm"] * 100, num_threads=job["threads"])
    if job["side"] == "encoder":
        batches = [batch.texts for batch in read_corpus(job["file"], errors="keep", batch_bytes=1 << 20)]
        began = time.perf_counter()
        for batch in batches:
            tokenizer.encode_flat(batch, num_threads=job["threads"])
        return {"seconds": time.perf_counter() - began}
    reset_peak_memory()
    before, began = memory("VmRSS"), time.perf_counter()
    with tempfile.TemporaryDirectory(dir=Path(job["file"]).parent) as directory:
        shards = write_shards(
            ShardSources(job["file"]), tokenizer, directory, tokenizer_file=path, threads=job["threads"]
        )
        seconds = time.perf_counter() - began
        documents = sum(map(shards.document_count, ("train", "held_out")))
    return {"seconds": seconds, "documents": documents, "memory": memory("VmHWM") - before}


def documents(text: str, size: int) -> Iterator[str]:
    """Yield the text in documents of about `size` bytes, cut at line ends."""
    lines: list[str] = []
    length = 0
    for line in text.splitlines(keepends=True):
        lines.append(line)
        length += len(line.encode())
        if length >= size:
            yield "".join(lines)
            lines, length = [], 0
    yield "".join(lines)


def write_corpus(path: Path, text: str, size: int, megabytes: float) -> float:
    """Write the documents of a text to a .jsonl file, repeated up to `megabytes`, and return the MB of text in it."""
    cut = [document for document in documents(text, size) if document]
    length = sum(len(document.encode()) for document in cut)
    lines = "".join(json.dumps({"text": document}, ensure_ascii=False) + "\n" for document in cut)
    times = max(1, round(megabytes * 1e6 / length))
    with path.open("w") as file:
        for _ in range(times):
            file.write(lines)
    return times * length / 1e6


def measure(source: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run both sides in turn on one text and return its row."""
    from bpe.corpus import documents as documents_of

    runs: dict[str, list[dict[str, float]]] = {"encoder": [], "shards": []}
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "corpus.jsonl"
        text = b"".join(documents_of(source)).decode("utf-8", "replace")
        size = write_corpus(file, text, arguments.document_bytes, arguments.megabytes)
        job = {"file": str(file), "tokenizer": arguments.tokenizer, "threads": arguments.threads}
        for _ in range(arguments.repeat):
            for side, own in runs.items():
                show(f"{source}: {side}")
                measured = run_worker(__file__, {**job, "side": side}, arguments.threads)
                if "error" in measured:
                    raise SystemExit(f"{side}: {measured['error']}")
                own.append(measured)
        show()
    turns = list(zip(*runs.values(), strict=True))
    return {
        "text": source,
        "MB": size,
        "documents": runs["shards"][0]["documents"],
        **{side: size / median(each["seconds"] for each in own) for side, own in runs.items()},
        "share": median(encoder["seconds"] / shards["seconds"] for encoder, shards in turns),
        "memory": max(each["memory"] for each in runs["shards"]),
    }


def main() -> None:
    """Measure each text and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "texts",
        nargs="*",
        default=[str(ROOT / "corpora" / "prose.txt")],
        help="text files, plain or compressed (default: corpora/prose.txt)",
    )
    parser.add_argument("-t", "--tokenizer", default="llama3", help="name or file of the tokenizer (default: llama3)")
    parser.add_argument("--megabytes", type=float, default=20, help="MB of text to encode (default: 20)")
    parser.add_argument("--document-bytes", type=int, default=2000, help="bytes per document, about (default: 2000)")
    parser.add_argument("--threads", type=int, default=2, help="threads of both sides (default: 2)")
    parser.add_argument("--repeat", type=int, default=3, help="number of turns; medians are shown (default: 3)")
    parser.add_argument("--json", metavar="FILE", help="write all results to FILE")
    add_kernel_option(parser)
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(worker(arguments.worker)))
        return

    results = []
    print(describe_machine())
    print(f"{COLUMNS[0]:<24}" + "".join(f"{column:>11}" for column in COLUMNS[1:]))
    for source in arguments.texts:
        result = measure(source, arguments)
        results.append(result)
        print(f"{Path(source).name:<24}" + "".join(f"{number(result[column]):>11}" for column in COLUMNS[1:]))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
