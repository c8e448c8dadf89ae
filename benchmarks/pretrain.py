"""Compare training on a CPU with transformers and a plain PyTorch model: same weights, losses compared first.

    python benchmarks/pretrain.py                                          # two vocabularies, two dtypes, all peers
    python benchmarks/pretrain.py --vocabularies 4096 --dtypes float32 --repeat 5 --threads 2 --json results.json

How to read the table: each line is a peer with the dtype of its matrix products (bfloat16 is torch's autocast; weights,
optimizer and loss are always float32). Speed is tokens per second for whole steps: forward, backward, clipping, AdamW.
Memory is the peak memory of the process less its memory after the imports, that is: weights, gradients, optimizer state
and activations. Numbers in brackets are ratios: how many times as fast (or as small) ours is with the same vocabulary,
in its faster dtype. ``loss`` is the largest difference between a loss and that of the plain model in float32, over the
first steps. A difference above --tolerance (ten times that in bfloat16) is marked with ``!``, and ours is not compared
with such a peer.

The model has 6 layers, 6 heads and dim 288, unless --layers, --heads and --dim change that, and tied embeddings. Each
run is a separate process on --threads threads. The peers take turns, --repeat times, and the table shows medians. The
time of a step is the median of --steps steps. Timings are noisy; compare the ratios rather than the absolute numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from common import (
    ROOT,
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
from torch_models import plain, transformers

PEERS = {"ours": "bpe-llama", "plain": "torch", "transformers": "transformers"}
DTYPES = ("float32", "bfloat16")
WARMUP = 3  # first steps: their losses are compared, their times are not used
TOLERANCE = 1e-4  # nats per token
LEARNING_RATE = 1e-3

# --- the worker: one peer ---


def ours(config: Any, weights: Mapping[str, Any]) -> tuple[Any, Callable[[Any, Any], Any]]:
    """Return the model and the loss that `bpe pretrain` uses."""
    from model import Transformer
    from model.memory import keep_freed_memory
    from model.training.fused import fuse
    from model.training.loss import cross_entropy_sum

    keep_freed_memory()
    model = Transformer(config)
    model.load_state_dict(weights)
    fuse(model)

    def loss(inputs: Any, targets: Any) -> Any:
        return cross_entropy_sum(model, model.hidden(inputs), targets) / targets.numel()

    return model, loss


def work(job: Mapping[str, Any]) -> dict[str, Any]:
    """Train a few steps.

    Args:
        job: "peer", "dtype", "config" (a `ModelConfig` as a dict), "sequences", "length", "steps" and "threads".

    Returns:
        The losses of the warm-up steps, the rates of the others in tokens per second of wall and processor time, and
        the memory in MB.
    """
    skip_rebuilding()
    import torch

    from model import ModelConfig, Transformer

    # Imports are not part of the model's memory. The first step of torch's optimizers imports torch._dynamo, 98 MB;
    # transformers does so with its model.
    importlib.import_module("torch._dynamo")
    if job["peer"] == "transformers":
        importlib.import_module("transformers.models.llama.modeling_llama")
    torch.set_num_threads(job["threads"])
    config = ModelConfig(**job["config"])
    # As in text, few tokens are frequent: ids are drawn with the density 1 / (id + 1).
    drawn = torch.rand(
        WARMUP + job["steps"], job["sequences"], job["length"] + 1, generator=torch.Generator().manual_seed(0)
    )
    ids = (config.vocab_size**drawn - 1).long().clamp(0, config.vocab_size - 1)
    imports = memory("VmRSS")
    reset_peak_memory()
    start = Transformer(config)
    start.init_weights(torch.Generator().manual_seed(1))  # the same weights for any number of steps
    model, loss_of = {"ours": ours, "plain": plain, "transformers": transformers}[job["peer"]](
        config, start.state_dict()
    )
    del start
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    losses, seconds, processor = [], [], []
    for window in ids:
        begin, begin_processor = time.perf_counter(), time.process_time()
        autocast = torch.autocast("cpu", torch.bfloat16) if job["dtype"] == "bfloat16" else contextlib.nullcontext()
        with autocast:
            loss = loss_of(window[:, :-1], window[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - begin)
        processor.append(time.process_time() - begin_processor)
    tokens = job["sequences"] * job["length"]
    return {
        "losses": losses[:WARMUP],
        "speed": tokens / median(seconds[WARMUP:]),
        "speed of a processor": tokens / median(processor[WARMUP:]),
        "memory": memory("VmHWM") - imports,
    }


def wait(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run `pretrain` on the texts of corpora/ and return the share of the time that its steps wait for data."""
    import torch

    from bpe import train
    from bpe.shards import write_shards
    from model import ModelConfig
    from model.training.pretraining import pretrain
    from model.training.settings import TrainConfig

    torch.set_num_threads(job["threads"])
    files = sorted((ROOT / "corpora").glob("*.txt"))
    texts = [path.read_text("utf-8") for path in files]
    tokens = job["sequences"] * job["length"]
    settings = TrainConfig(
        steps=WARMUP + job["steps"], batch_tokens=tokens, sequence_length=job["length"], dtype=job["dtype"]
    )
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        tokenizer = train(files, vocab_size=300, special_tokens=["<|end_of_text|>"])
        tokenizer.save(directory / "tokenizer.json")
        write_shards(texts, tokenizer, directory / "data", tokenizer_file=directory / "tokenizer.json", held_out=0)
        pretrain(directory / "data", directory / "run", ModelConfig(**job["config"]), settings, progress=io.StringIO())
        records = [json.loads(line) for line in (directory / "run/metrics.jsonl").read_text("utf-8").splitlines()]
    steps = [record for record in records if record["kind"] == "step"][WARMUP:]
    seconds = [1 / step["tokens_per_second"] for step in steps]  # per token; all steps have the same number of tokens
    return {"waiting": sum(step["wait"] * took for step, took in zip(steps, seconds, strict=True)) / sum(seconds)}


def work_or_wait(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run the worker's job: `wait` for the peer "waiting", otherwise `work`."""
    return wait(job) if job["peer"] == "waiting" else work(job)


# --- the main process ---


def sizes(text: str) -> list[int]:
    """Parse numbers separated by commas."""
    return [int(size) for size in text.split(",")]


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers, dtypes = list(PEERS), list(DTYPES)
    parser.add_argument("--peers", type=choice(peers), default=peers, help="peers, separated by commas (default: all)")
    parser.add_argument(
        "--dtypes", type=choice(dtypes), default=dtypes, help="dtypes, separated by commas (default: all)"
    )
    parser.add_argument(
        "--vocabularies", type=sizes, default=[4096, 32000], help="vocabulary sizes (default: 4096,32000)"
    )
    parser.add_argument("--dim", type=int, default=288, help="dim of the model (default: 288)")
    parser.add_argument("--layers", type=int, default=6, help="number of layers (default: 6)")
    parser.add_argument("--heads", type=int, default=6, help="number of attention heads (default: 6)")
    parser.add_argument("--sequences", type=int, default=8, help="sequences per batch (default: 8)")
    parser.add_argument("--length", type=int, default=256, help="tokens per sequence (default: 256)")
    parser.add_argument("--steps", type=int, default=8, help="number of steps to time per run (default: 8)")
    parser.add_argument("--repeat", type=int, default=3, help="number of runs of each peer (default: 3)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each peer (default: 2)")
    add_kernel_option(parser)
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help=f"largest loss difference, nats per token ({TOLERANCE:g})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to FILE")
    return parser.parse_args()


def main() -> None:
    """Run the peers in turn and print the tables."""
    arguments = parse_arguments()
    machine, versions = introduce({peer: PEERS[peer] for peer in arguments.peers})

    results = {}
    for vocabulary in arguments.vocabularies:
        config = {"dim": arguments.dim, "n_layers": arguments.layers, "n_heads": arguments.heads}
        config |= {"vocab_size": vocabulary, "max_seq_len": arguments.length, "tied_embeddings": True}
        config |= {"rope_theta": 10000.0}
        job = {"config": config, "sequences": arguments.sequences, "length": arguments.length}
        job |= {"steps": arguments.steps, "threads": arguments.threads}
        reference = run_worker(__file__, {**job, "peer": "plain", "dtype": "float32", "steps": 1}, arguments.threads)
        if "error" in reference:
            sys.exit(f"plain, float32: {reference['error']}")
        runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for turn in range(arguments.repeat):
            for dtype in arguments.dtypes:
                for peer in (peer for peer in arguments.peers if peer in versions):
                    show(f"vocabulary of {vocabulary:,}, {turn + 1} of {arguments.repeat}: {peer} {dtype}")
                    result = run_worker(__file__, {**job, "peer": peer, "dtype": dtype}, arguments.threads)
                    runs.setdefault((peer, dtype), []).append(result)
        show()
        results[vocabulary] = summarize(runs, reference["losses"], arguments.tolerance)
        table(vocabulary, results[vocabulary])
        if "ours" in arguments.peers:
            waiting = run_worker(__file__, {**job, "peer": "waiting", "dtype": arguments.dtypes[0]}, arguments.threads)
            print(waiting.get("error") or f"`pretrain` waits for data {waiting['waiting']:.2%} of the time")
            results[vocabulary].append({"peer": "waiting", **waiting})
    if arguments.json:
        found = {"machine": machine, "versions": versions, "results": results}
        arguments.json.write_text(json.dumps(found, indent=2))


def summarize(
    runs: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]], losses: Sequence[float], tolerance: float
) -> list[dict[str, Any]]:
    """Summarize the runs of each peer and dtype.

    Args:
        runs: Results of `work` by peer and dtype.
        losses: The losses of the plain model in float32.
        tolerance: The largest difference in nats per token that counts as rounding; ten times this in bfloat16.

    Returns:
        A row for each peer and dtype: the medians of speed and memory, the largest "difference" of a loss, and "same",
        whether that is within the tolerance. A row with a failed run has the key "error" instead.
    """
    rows = []
    for (peer, dtype), measured in runs.items():
        row: dict[str, Any] = {"peer": peer, "dtype": dtype, "runs": measured}
        rows.append(row)
        if errors := [run["error"] for run in measured if "error" in run]:
            row["error"] = errors[0]
            continue
        pairs = [pair for run in measured for pair in zip(run["losses"], losses, strict=True)]
        row["difference"] = max(abs(loss - expected) for loss, expected in pairs)
        row["same"] = row["difference"] <= tolerance * (10 if dtype == "bfloat16" else 1)
        for column in ("speed", "memory"):
            row[column] = median(run[column] for run in measured)
    return rows


def table(vocabulary: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows with their ratios to ours in its faster dtype, then our ratios to the best of the other peers."""
    good = [row for row in rows if "error" not in row]
    own = [row for row in good if row["peer"] == "ours" and row["same"]]
    others = [row for row in good if row["peer"] != "ours" and row["same"]]
    best = max(own, key=lambda row: float(row["speed"]), default=None)
    print(f"\n{f'vocabulary of {vocabulary:,}':24}{'tokens/s':>18}{'memory, MB':>18}{'loss':>12}")
    for row in rows:
        name = f"{row['peer']} {row['dtype']}"
        if "error" in row:
            print(f"{name:24}  {row['error']}")
            continue
        speed, size = number(row["speed"]), number(row["memory"])
        if best:
            speed += f" ({best['speed'] / row['speed']:5.2f})"
            size += f" ({row['memory'] / best['memory']:5.2f})"
        print(f"{name:24}{speed:>18}{size:>18}{row['difference']:>11.1e}{' ' if row['same'] else '!'}")
    if best and others:
        fastest = max(others, key=lambda row: float(row["speed"]))
        smallest = min(others, key=lambda row: float(row["memory"]))
        print(
            f"ours {best['dtype']}: {best['speed'] / fastest['speed']:.2f} times as fast as the fastest other "
            f"({fastest['peer']} {fastest['dtype']}), with {best['memory'] / smallest['memory']:.2f} of the memory "
            f"of the smallest ({smallest['peer']} {smallest['dtype']})"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(work_or_wait(json.loads(sys.argv[2]))))
    else:
        main()
