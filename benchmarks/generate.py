"""Compare prefill and decoding with transformers and llama.cpp: same weights, greedy ids compared first, then timed.

    python benchmarks/generate.py smollm2                     # a name, or a .gguf file, which every peer can read
    python benchmarks/generate.py smollm2 --peers "ours bfloat16,llama.cpp" --repeat 5 --threads 2 --json results.json
    python benchmarks/generate.py smollm2 --quantize q8_0        # or bf16, q4_1, ...: convert the weights first
    python benchmarks/generate.py --shape llama3.2-1b --quantize q4_1 --peers "ours native,llama.cpp"  # random weights

How to read the table: each line is a peer with its weight type. "decode 1", "decode 8" and "decode 32" are tokens per
second for one text, and for 8 and 32 at once, all together, at positions 128 to 128 + --tokens; "decode far" is for one
text from position 2,000. "prefill" is tokens per second for a prompt of 1,024 tokens. "load" is the seconds from the
call until the model can be used. "memory" is the peak memory of the process less its memory after the imports. Numbers
in brackets are ratios: how many times as fast (or as small) the first peer listed is. ``differs`` gives the position of
the first greedy id that differs from that of --reference. Rounding to 16 bits or 8-bit activations can change ids, and
with random weights they soon do. The default reference, ours in float32, takes 4 bytes per weight; if that is too much
memory, choose one of the measured peers.

Each run is a separate process on --threads threads. The peers take turns, --repeat times, and the table shows medians.
For transformers, a GGUF is converted once to a directory in its own format; the gguf package and this project
dequantize the weights identically. Timings are noisy; compare the ratios rather than the absolute numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from common import (
    add_kernel_option,
    choice,
    introduce,
    memory,
    number,
    reset_peak_memory,
    run_worker,
    show,
    skip_rebuilding,
)

if TYPE_CHECKING:
    import torch

    from model.checkpoint import Checkpoint

PROMPT, LONG, FAR = 128, 1024, 2000
TOGETHER = (1, 8, 32)  # texts
FIRST = 64  # greedy ids to compare
TEXT = "The history of writing begins with marks on clay, and "

PEERS = {
    "ours bfloat16": "bpe-llama",
    "ours float32": "bpe-llama",
    "ours native": "bpe-llama",
    "transformers bfloat16": "transformers",
    "transformers float32": "transformers",
    "llama.cpp": "llama-cpp-python",
}
Read = Callable[[Sequence[Sequence[int]]], list[int]]
"""A function that processes more ids of each text and returns the most likely next id of each."""


# --- the worker: one peer ---


class Ours:
    """This project's model, as PyTorch or native."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        import torch

        from model import NativeModel, load

        self.torch, self.native = torch, NativeModel
        torch.set_num_threads(job["threads"])
        weights = job["peer"].split()[1]
        if weights == "native":
            self.load: Callable[[], Any] = lambda: load(job["path"], backend="native")[0]
            return
        self.load = lambda: load(job["path"], dtype=getattr(torch, weights), packed=True)[0]

    def open(self) -> None:
        """Load the model."""
        self.model = self.load()
        if isinstance(self.model, self.native):  # it has its own threads, and torch's would spin and slow them
            self.torch.set_num_threads(1)

    def read_weights(self) -> float | None:
        """Return the seconds to read all weights without using them, a lower bound for a decoding step.

        Return None for a model that is not native.
        """
        if not isinstance(self.model, self.native):
            return None
        seconds = []
        for _ in range(9):
            begin = time.perf_counter()
            self.model.core.sum_weights()
            seconds.append(time.perf_counter() - begin)
        return median(seconds)

    def begin(self, texts: int, capacity: int) -> Read:
        """Start texts with an empty cache for `capacity` ids each."""
        cache = self.model.new_cache(texts, capacity)

        def read(ids: Sequence[Sequence[int]]) -> list[int]:
            with self.torch.inference_mode():
                logits = self.model(self.torch.tensor(ids), cache, last_only=True)
                return list(logits[:, -1].argmax(-1).tolist())

        return read


class Transformers:
    """Hugging Face's transformers, with the same weights in its format."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        import torch
        from transformers import AutoModelForCausalLM, DynamicCache

        self.torch, self.new_cache = torch, DynamicCache
        torch.set_num_threads(job["threads"])
        dtype = getattr(torch, job["peer"].split()[1])
        self.load = lambda: AutoModelForCausalLM.from_pretrained(job["directory"], dtype=dtype).eval()

    def open(self) -> None:
        """Load the model."""
        self.model = self.load()

    def begin(self, texts: int, capacity: int) -> Read:
        """Start texts with an empty cache."""
        cache = self.new_cache(config=self.model.config)

        def read(ids: Sequence[Sequence[int]]) -> list[int]:
            with self.torch.inference_mode():
                given = self.torch.tensor(ids)
                logits = self.model(given, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
                return list(logits[:, -1].argmax(-1).tolist())

        return read


class LlamaCpp:
    """llama.cpp, with the unchanged GGUF and llama.cpp's own batches."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        import llama_cpp
        import numpy

        self.api, self.numpy, self.job = llama_cpp, numpy, job
        self.silent = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self.silent, None)
        llama_cpp.llama_backend_init()

    def open(self) -> None:
        """Load the model."""
        parameters = self.api.llama_model_default_params()
        self.model = self.api.llama_model_load_from_file(self.job["path"].encode(), parameters)
        self.vocabulary = self.api.llama_vocab_n_tokens(self.api.llama_model_get_vocab(self.model))

    def begin(self, texts: int, capacity: int) -> Read:
        """Start texts with an empty context for `capacity` ids each."""
        api = self.api
        context = self._context(texts, capacity)
        batch = api.llama_batch_init(texts * LONG, 0, texts)
        read_so_far = 0

        def read(ids: Sequence[Sequence[int]]) -> list[int]:
            nonlocal read_so_far
            count = len(ids[0])
            place = 0
            for text, given in enumerate(ids):
                for offset, id in enumerate(given):
                    batch.token[place], batch.pos[place] = id, read_so_far + offset
                    batch.n_seq_id[place], batch.seq_id[place][0] = 1, text
                    batch.logits[place] = offset == count - 1
                    place += 1
            batch.n_tokens = place
            if api.llama_decode(context, batch):
                raise RuntimeError("llama_decode failed")
            read_so_far += count
            ends = [(text + 1) * count - 1 for text in range(len(ids))]
            rows = [api.llama_get_logits_ith(context, end)[: self.vocabulary] for end in ends]
            return [int(self.numpy.argmax(row)) for row in rows]

        return read

    def logits(self, ids: Sequence[int]) -> Any:
        """Return the logits of the token after each id, float32 [ids, vocabulary]."""
        api = self.api
        context = self._context(1, len(ids))
        batch = api.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for place, id in enumerate(ids):
            batch.token[place], batch.pos[place], batch.logits[place] = id, place, True
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
        if api.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")
        rows = [api.llama_get_logits_ith(context, place) for place in range(len(ids))]
        found = self.numpy.stack([self.numpy.ctypeslib.as_array(row, (self.vocabulary,)) for row in rows])
        api.llama_batch_free(batch)
        api.llama_free(context)
        return found

    def _context(self, texts: int, capacity: int) -> Any:
        parameters = self.api.llama_context_default_params()
        parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = texts * capacity, texts * LONG, 512
        parameters.n_seq_max = texts
        parameters.n_threads = parameters.n_threads_batch = self.job["threads"]
        return self.api.llama_init_from_model(self.model, parameters)


def work(job: Mapping[str, Any]) -> dict[str, Any]:
    """Load a peer's model and measure it.

    Args:
        job: "peer", "path", "directory" (the model for transformers), "ids", "threads" and "tokens" to time.

    Returns:
        Rates, load time and memory by column, and the greedy ids.
    """
    skip_rebuilding()
    peer = {"ours": Ours, "transformers": Transformers, "llama.cpp": LlamaCpp}[job["peer"].split()[0]](job)
    imports = memory("VmRSS")
    reset_peak_memory()
    begin = time.perf_counter()
    peer.open()
    result: dict[str, Any] = {"load": time.perf_counter() - begin}
    ids, tokens = job["ids"], job["tokens"]
    result["greedy"] = greedy_ids(peer, ids)
    for texts in TOGETHER:
        read = peer.begin(texts, PROMPT + tokens + 8)
        last = read([ids[text : PROMPT + text] for text in range(texts)])
        result[f"decode {texts}"] = texts / seconds_per_step(read, last, tokens)
    result["prefill"] = LONG / seconds_of_prefill(peer, ids)
    read = peer.begin(1, FAR + tokens + 8)
    for start in range(0, FAR, LONG):
        last = read([(ids * 2)[start : min(start + LONG, FAR)]])
    result["decode far"] = 1 / seconds_per_step(read, last, tokens)
    if isinstance(peer, Ours) and (whole := peer.read_weights()):
        result["share of a pure read"] = result["decode 1"] * whole
    result["memory"] = memory("VmHWM") - imports
    return result


def greedy_ids(peer: Any, ids: list[int]) -> list[int]:
    """Return the first `FIRST` ids that the peer generates greedily after the prompt."""
    read = peer.begin(1, PROMPT + FIRST)
    greedy: list[int] = read([ids[:PROMPT]])
    while len(greedy) < FIRST:
        greedy += read([[greedy[-1]]])
    return greedy


def seconds_per_step(read: Read, last: list[int], steps: int) -> float:
    """Return the median seconds of a decoding step that adds one token to each text."""
    seconds = []
    for _ in range(steps):
        begin = time.perf_counter()
        last = read([[id] for id in last])
        seconds.append(time.perf_counter() - begin)
    return median(seconds)


def seconds_of_prefill(peer: Any, ids: list[int]) -> float:
    """Return the seconds to process a prompt of `LONG` tokens, the best of two."""
    seconds = []
    for _ in range(2):
        read = peer.begin(1, LONG + 8)
        begin = time.perf_counter()
        read([ids[:LONG]])
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


# --- the model file ---

PLAIN = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
TYPES = (*PLAIN, "q8_0", "q6_k", "q4_k", "q4_1", "q4_0")


def random_checkpoint(shape: str, directory: Path) -> Checkpoint:
    """Return a checkpoint in the shape of a preset, with a context of at least `2 * FAR` and random weights.

    The weights are drawn one tensor at a time and are the same in each run. The tokenizer is Llama 3's if its size fits
    and it is installed; otherwise a tokenizer of single bytes is written to `directory`.
    """
    import torch

    from bpe import InputError, Tokenizer
    from bpe.locate import locate
    from model import ModelConfig
    from model.checkpoint import Checkpoint
    from model.checkpoint.weights import expected_shapes

    config = ModelConfig.preset(shape)
    config = dataclasses.replace(config, max_seq_len=max(config.max_seq_len, 2 * FAR))
    tokenizer = directory / "tokenizer.json"
    Tokenizer(
        "bytes", pat_str="llama3", mergeable_ranks={bytes([byte]): byte for byte in range(256)}, special_tokens={}
    ).save(tokenizer)
    if config.vocab_size == 128256:
        with contextlib.suppress(InputError):
            tokenizer = locate("llama3")

    def tensors(dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for name, size in expected_shapes(config).items():
            if len(size) > 1:
                yield name, torch.randn(size, generator=generator) * 0.02
            else:
                yield name, torch.full(size, 0.0 if name.endswith("bias") else 1.0)

    return Checkpoint(config, "bfloat16", Path(shape), tokenizer, tensors)


def write_file(checkpoint: Checkpoint, kind: str, path: Path) -> None:
    """Write a checkpoint as a GGUF with weights of one of `TYPES`."""
    from model.checkpoint import gguf
    from model.checkpoint.quantize import quantized

    if kind in PLAIN:
        plain = {"dtype": PLAIN[kind], "computed": checkpoint.tensors, "weights": None, "kinds": {}, "stored": ""}
        gguf.write(dataclasses.replace(checkpoint, **plain), path)
    else:
        gguf.write(quantized(checkpoint, kind), path)


# --- the main process ---

COLUMNS = {
    **{f"decode {texts}": "tokens/s" for texts in TOGETHER},
    "decode far": "tokens/s",
    "prefill": "tokens/s",
    "load": "s",
    "memory": "MB",
}
LESS_IS_BETTER = ("load", "memory")


def main() -> None:
    """Run the peers in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("model", nargs="?", help="name of a model, or a .gguf file")
    given.add_argument("--shape", metavar="PRESET", help="random weights in the shape of a preset, such as llama3.2-1b")
    parser.add_argument("--quantize", choices=TYPES, help="convert the weights to this type first")
    parser.add_argument(
        "--peers", type=choice(list(PEERS)), default=list(PEERS), help="peers, separated by commas (default: all)"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of each peer (default: 2)")
    add_kernel_option(parser)
    parser.add_argument("--repeat", type=int, default=3, help="number of runs of each peer (default: 3)")
    parser.add_argument("--tokens", type=int, default=48, help="number of decoding steps to time (default: 48)")
    parser.add_argument(
        "--reference",
        choices=PEERS,
        default="ours float32",
        help="peer whose greedy ids the others are compared with (default: ours float32)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to FILE")
    arguments = parser.parse_args()
    machine, versions = introduce({PEERS[peer]: PEERS[peer] for peer in arguments.peers})

    from bpe import Tokenizer
    from bpe.locate import locate
    from model.checkpoint import open_checkpoint

    results: dict[str, list[dict[str, Any]]] = {peer: [] for peer in arguments.peers}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.gguf" if arguments.shape or arguments.quantize else locate(arguments.model)
        if arguments.shape:
            show(f"writing {arguments.shape}")
            write_file(random_checkpoint(arguments.shape, Path(directory)), arguments.quantize or "bf16", path)
        elif arguments.quantize:
            write_file(open_checkpoint(locate(arguments.model)), arguments.quantize, path)
        ids = Tokenizer.from_file(path).encode_ordinary(TEXT * 200)[: LONG + max(TOGETHER)]
        if any(peer.startswith("transformers") for peer in arguments.peers):
            from model.checkpoint import convert

            convert(path, Path(directory) / "model", "huggingface")
        base = {"path": str(path), "directory": f"{directory}/model", "ids": ids}
        base |= {"threads": arguments.threads, "tokens": arguments.tokens}
        show(f"greedy ids: {arguments.reference}")
        reference = run_worker(__file__, {**base, "peer": arguments.reference, "tokens": 1}, arguments.threads)
        for turn in range(arguments.repeat):
            for peer in arguments.peers:
                show(f"{turn + 1} of {arguments.repeat}: {peer}")
                results[peer].append(run_worker(__file__, {**base, "peer": peer}, arguments.threads))
    show()
    table(results, reference.get("greedy", []))
    if arguments.json:
        found = {"machine": machine, "versions": versions, "model": arguments.shape or arguments.model}
        found |= {"quantize": arguments.quantize, "results": results}
        arguments.json.write_text(json.dumps(found, indent=2))


def table(results: Mapping[str, Sequence[Mapping[str, Any]]], greedy: Sequence[int]) -> None:
    """Print medians, ratios to the first peer, and the position of the first differing greedy id."""
    good = {peer: [run for run in runs if "error" not in run] for peer, runs in results.items()}
    for peer, runs in results.items():
        for error in {run["error"] for run in runs if "error" in run}:
            print(f"{peer}: {error}")
    medians = {
        peer: {column: median(run[column] for run in runs) for column in COLUMNS} for peer, runs in good.items() if runs
    }
    first = next(iter(medians.values()), {})
    width = max(map(len, results))
    print(" " * width + "".join(f"{column + ', ' + unit:>22}" for column, unit in COLUMNS.items()) + "  greedy ids")
    for peer, values in medians.items():
        line = f"{peer:{width}}"
        for column in COLUMNS:
            ratio = values[column] / first[column] if column in LESS_IS_BETTER else first[column] / values[column]
            line += f"{number(values[column]):>14} ({ratio:5.2f})"
        written = good[peer][0]["greedy"]
        parts = next(
            (place for place, pair in enumerate(zip(written, greedy, strict=True)) if pair[0] != pair[1]), None
        )
        print(line + ("  the same" if parts is None else f"  differs from {parts + 1}"))
    for peer, runs in good.items():
        shares = [run["share of a pure read"] for run in runs if "share of a pure read" in run]
        if shares:
            print(f"{peer} decodes at {median(shares):.0%} of the rate at which its weights can be read")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(work(json.loads(sys.argv[2]))))
    else:
        main()
