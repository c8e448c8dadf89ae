"""Measure the accuracy and speed of each quantized weight type, in our kernels and in llama.cpp.

    python benchmarks/quantize.py smollm2                    # a name, or a checkpoint in any format
    python benchmarks/quantize.py Llama-3.2-1B --types q8_0,q4_k --texts english.txt --tokens 4096 --json results.json

The benchmark quantizes the model to each type as `bpe convert` does. Four readers then process a held-out text:
"float32", PyTorch with the dequantized weights; "native", our kernels; "native int8 cache", our kernels with keys and
values in int8; and "llama.cpp", from the same file, if it is installed. The type "as it is" stands for the given
checkpoint, if that is a GGUF.

How to read the table: "bits" is the average number of bits per weight, including scales, norms and embeddings.
Perplexity and bits per byte are those of the text. Both "from" columns give the largest and the mean deviation of the
logits, and the share of positions where the most likely token is the same. "From float32" compares with the reader
float32 on the same dequantized weights, and so shows the error of the reader. "From the original" compares with the
given checkpoint in float32, and so shows the error of the type. "tokens/s" is the rate of decoding one text.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from common import ROOT, add_kernel_option, choice, introduce, number, run_worker, show, skip_rebuilding
from generate import LlamaCpp

TYPES = ("as it is", "q8_0", "q6_k", "q4_k", "q4_1", "q4_0")
READERS = {"float32": "bpe-llama", "native": "bpe-llama", "native int8 cache": "bpe-llama",
           "llama.cpp": "llama-cpp-python"}  # fmt: skip
PROMPT = 64  # tokens to prefill before decoding is timed
Logits = Callable[[Sequence[int]], Any]
"""A function that takes ids and returns the logits of the token after each id, float32 [ids, vocabulary]."""


# --- the worker: one type ---


def readers(job: Mapping[str, Any]) -> dict[str, tuple[Logits, Callable[[], Callable[[int], None]] | None]]:
    """Return the job's readers by name.

    A reader is a function that returns logits and a function that prefills a prompt and returns a function that decodes
    one more id; the latter is None for a reader whose rate is not measured.
    """
    import torch

    from model import load

    float32, _ = load(job["file"], torch.float32)
    native, _ = load(job["file"], backend="native")

    def by_cache(dtype: Any) -> tuple[Logits, Callable[[], Callable[[int], None]]]:
        def begin() -> Callable[[int], None]:
            cache = native.new_cache(dtype=dtype, capacity=PROMPT + job["steps"])
            native(torch.tensor([job["ids"][:PROMPT]]), cache, last_only=True)
            return lambda id: native(torch.tensor([[id]]), cache, last_only=True)

        return lambda ids: native(torch.tensor([ids]), native.new_cache(dtype=dtype))[0], begin

    found: dict[str, Any] = {
        "float32": (lambda ids: float32(torch.tensor([ids]))[0], None),
        "native": by_cache(torch.float16),
        "native int8 cache": by_cache(torch.int8),
    }
    if "llama.cpp" in job["readers"]:
        peer = LlamaCpp({"path": job["file"], "threads": job["threads"]})
        peer.open()

        def begin() -> Callable[[int], None]:
            read = peer.begin(1, PROMPT + job["steps"])
            read([job["ids"][:PROMPT]])
            return lambda id: read([[id]])

        found["llama.cpp"] = lambda ids: torch.from_numpy(peer.logits(ids)), begin
    return {name: found[name] for name in job["readers"]}


def work(job: Mapping[str, Any]) -> dict[str, Any]:
    """Process the text in windows with all readers, compare their logits, then time their decoding."""
    skip_rebuilding()
    import torch
    from torch.nn.functional import cross_entropy

    from model import load
    from model.evaluation.windows import windows

    torch.set_num_threads(job["threads"])
    with torch.inference_mode():
        original, _ = load(job["original"], torch.float32)
        all_readers = readers(job)
        sums = {name: Sums() for name in all_readers}
        count = 0
        for window in windows(job["ids"], job["window"], job["window"] // 2):
            ids, predicted = list(window.ids), window.predicted
            count += predicted
            targets = torch.tensor(ids[-predicted:])
            expected = original(torch.tensor([ids[:-1]]))[0, -predicted:]
            logits = {name: read(ids[:-1])[-predicted:] for name, (read, _) in all_readers.items()}
            for name, own in logits.items():
                sums[name].nats += float(cross_entropy(own, targets, reduction="sum"))
                sums[name].add("from float32", own, logits["float32"])
                sums[name].add("from the original", own, expected)
        results = {name: own.results(count, job["bytes"]) for name, own in sums.items()}
        torch.set_num_threads(1)  # otherwise torch's threads spin and slow the others
        for name, (_, begin) in all_readers.items():
            if begin is not None:
                results[name]["tokens/s"] = 1 / median(timed(begin(), job["ids"][: job["steps"]]))
    return results


class Sums:
    """Sums over the positions of a text: the loss and the deviations of logits."""

    def __init__(self) -> None:
        self.nats = 0.0
        self.largest: dict[str, float] = {}
        self.means: dict[str, float] = {}
        self.same: dict[str, int] = {}

    def add(self, name: str, logits: Any, others: Any) -> None:
        """Add the deviations of logits from others, both [positions, vocabulary]."""
        errors = (logits - others).abs()
        self.largest[name] = max(self.largest.get(name, 0.0), float(errors.max()))
        self.means[name] = self.means.get(name, 0.0) + float(errors.mean(-1).sum())
        self.same[name] = self.same.get(name, 0) + int((logits.argmax(-1) == others.argmax(-1)).sum())

    def results(self, count: int, size: int) -> dict[str, Any]:
        """Return the means over `count` positions of a text of `size` bytes."""
        found: dict[str, Any] = {
            "perplexity": math.exp(self.nats / count), "bits per byte": self.nats / math.log(2) / size
        }  # fmt: skip
        for name, largest in self.largest.items():
            found[name] = {
                "largest": largest, "mean": self.means[name] / count, "same id": self.same[name] / count
            }  # fmt: skip
        return found


def timed(read: Callable[[int], None], ids: Iterable[int]) -> list[float]:
    """Return the seconds that decoding each id takes."""
    seconds = []
    for id in ids:
        begin = time.perf_counter()
        read(id)
        seconds.append(time.perf_counter() - begin)
    return seconds


# --- the main process ---


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name of a model, or a checkpoint in any format")
    parser.add_argument(
        "--types", type=choice(TYPES), default=list(TYPES), help="weight types, separated by commas (default: all)"
    )
    parser.add_argument(
        "--readers", type=choice(list(READERS)), default=list(READERS), help="readers, separated by commas (all)"
    )
    parser.add_argument(
        "--texts",
        default=str(ROOT / "corpora" / "prose.txt"),
        metavar="FILE",
        help="a text that the model was not trained on (default: corpora/prose.txt)",
    )
    parser.add_argument("--tokens", type=int, default=2048, help="number of tokens of the text to use (default: 2048)")
    parser.add_argument("--window", type=int, default=512, help="tokens per window (default: 512)")
    parser.add_argument("--steps", type=int, default=32, help="number of decoding steps to time (default: 32)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each reader (default: 2)")
    add_kernel_option(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to FILE")
    return parser.parse_args()


def main() -> None:
    """Quantize the model to each type, run the readers and print the table."""
    arguments = parse_arguments()
    machine, versions = introduce({READERS[reader]: READERS[reader] for reader in arguments.readers})
    able = [reader for reader in arguments.readers if READERS[reader] in versions]
    able = able if "float32" in able else ["float32", *able]

    from bpe import Tokenizer
    from bpe.locate import locate
    from model.checkpoint import format_of

    path = locate(arguments.model)
    tokenizer = Tokenizer.from_file(path)
    ids = tokenizer.encode_ordinary(Path(arguments.texts).read_text("utf-8"))[: arguments.tokens]
    job = {
        "original": str(path), "ids": ids, "bytes": len(tokenizer.decode_bytes(ids[1:])), "window": arguments.window,
        "steps": min(arguments.steps, len(ids)), "threads": arguments.threads, "readers": able,
    }  # fmt: skip
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        for kind in arguments.types:
            show(kind)
            file = path
            if kind != "as it is":
                from model.checkpoint import convert

                file = Path(directory) / f"{kind}.gguf"
                convert(path, file, quantize=kind)
            elif format_of(path) != "gguf":
                continue
            results[kind] = sizes(file) | {
                "readers": run_worker(__file__, {**job, "file": str(file)}, arguments.threads)
            }
            if file != path:
                file.unlink()
    show()
    table(results)
    if arguments.json:
        found = {"machine": machine, "versions": versions, "model": arguments.model, "results": results}
        arguments.json.write_text(json.dumps(found, indent=2))


def sizes(file: Path) -> dict[str, float]:
    """Return the size of a GGUF in MB and its average number of bits per weight."""
    from bpe.formats.gguf_container import Container

    tensors = Container.open(file).tensors.values()
    weights = sum(math.prod(tensor.shape) for tensor in tensors)
    return {"MB": file.stat().st_size / 1e6, "bits": 8 * sum(tensor.n_bytes for tensor in tensors) / weights}


def table(results: Mapping[str, Any]) -> None:
    """Print a line for each type and reader."""
    print(f"{'':33}{'MB':>6}{'bits':>6}{'perplexity':>12}{'bits/byte':>11}"
          f"{'from float32':>28}{'from the original':>28}{'tokens/s':>10}")  # fmt: skip
    for kind, found in results.items():
        if "error" in found["readers"]:
            print(f"{kind}: {found['readers']['error']}")
            continue
        for name, own in found["readers"].items():
            distances = "".join(
                f"{own[other]['largest']:>11.3f}{own[other]['mean']:>9.4f}{own[other]['same id']:>8.1%}"
                for other in ("from float32", "from the original")
            )
            rate = number(own["tokens/s"]) if "tokens/s" in own else "-"
            print(f"{kind + ', ' + name:33}{found['MB']:6.0f}{found['bits']:6.2f}{own['perplexity']:12.3f}"
                  f"{own['bits per byte']:11.4f}{distances}{rate:>10}")  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(work(json.loads(sys.argv[2]))))
    else:
        main()
