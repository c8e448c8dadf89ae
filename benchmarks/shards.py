"""How fast shards are written beside how fast their text is encoded, on your own text.

    python benchmarks/shards.py                                   # corpora/, a few seconds
    python benchmarks/shards.py english.txt.xz --megabytes 500 --document-bytes 2000 --json results.json

The texts are cut at line ends into documents, and repeated up to --megabytes in a .jsonl file.

    encoder     `encode_flat` of all batches, which are in memory beforehand, in MB of text a second
    shards      `write_shards` of the file, from reading it to the last fsync
    share       the second rate over the first, the median of the turns that they take
    memory      how much more the process took at its peak than before `write_shards`, in MB
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

from common import ROOT, memory, number, reset_peak_memory, run_worker, show, skip_rebuilding

COLUMNS = ("text", "MB", "documents", "encoder", "shards", "share", "memory")


def worker(job: dict[str, Any]) -> dict[str, float]:
    """Measure one side in this process."""
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
    """The text in documents of about so many bytes."""
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
    """Write the .jsonl file; give its text in MB."""
    cut = [document for document in documents(text, size) if document]
    length = sum(len(document.encode()) for document in cut)
    lines = "".join(json.dumps({"text": document}, ensure_ascii=False) + "\n" for document in cut)
    times = max(1, round(megabytes * 1e6 / length))
    with path.open("w") as file:
        for _ in range(times):
            file.write(lines)
    return times * length / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "texts", nargs="*", default=[str(ROOT / "corpora" / "prose.txt")], help="files, also compressed"
    )
    parser.add_argument("-t", "--tokenizer", default="llama3")
    parser.add_argument("--megabytes", type=float, default=20, help="of text that is encoded (default: 20)")
    parser.add_argument("--document-bytes", type=int, default=2000, help="of a document, about (default: 2000)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3, help="turns, of which the medians count (default: 3)")
    parser.add_argument("--json", metavar="FILE", help="write the results")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(worker(arguments.worker)))
        return

    from bpe.corpus import documents as documents_of

    results = []
    print(f"{COLUMNS[0]:<24}" + "".join(f"{column:>11}" for column in COLUMNS[1:]))
    for source in arguments.texts:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "corpus.jsonl"
            text = b"".join(documents_of(source)).decode("utf-8", "replace")
            size = write_corpus(file, text, arguments.document_bytes, arguments.megabytes)
            runs: dict[str, list[dict[str, float]]] = {"encoder": [], "shards": []}
            for _ in range(arguments.repeat):
                for side, own in runs.items():
                    show(f"{source}: {side}")
                    job = {
                        "side": side,
                        "file": str(file),
                        "tokenizer": arguments.tokenizer,
                        "threads": arguments.threads,
                    }
                    measured = run_worker(__file__, {**job, "threads": arguments.threads}, arguments.threads)
                    if "error" in measured:
                        raise SystemExit(f"{side}: {measured['error']}")
                    own.append(measured)
            show()
        turns = list(zip(*runs.values(), strict=True))
        result = {
            "text": source,
            "MB": size,
            "documents": runs["shards"][0]["documents"],
            **{side: size / median(each["seconds"] for each in own) for side, own in runs.items()},
            "share": median(encoder["seconds"] / shards["seconds"] for encoder, shards in turns),
            "memory": max(each["memory"] for each in runs["shards"]),
        }
        results.append(result)
        print(f"{Path(source).name:<24}" + "".join(f"{number(result[column]):>11}" for column in COLUMNS[1:]))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
