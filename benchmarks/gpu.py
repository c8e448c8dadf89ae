"""Compare training and generation on one GPU with transformers and plain PyTorch: same weights, results compared first.

    python benchmarks/gpu.py --json results.json                     # everything, in 9.5 minutes or less
    python benchmarks/gpu.py --sections train-1B,generate-8B --minutes 5
    python benchmarks/gpu.py --device cpu --tiny                     # checks the script, in less than a minute

Training: whole steps (forward, backward, clipping, AdamW) in bfloat16, that is, under torch's autocast with weights,
gradients and optimizer in float32. ``loss`` is the largest difference between a loss of the first steps and that of the
plain model in float32; a difference above --tolerance is marked with ``!``, and nothing is compared with that peer.
``MFU`` is the share of the device's peak that training uses. A token counts as 6 N + 12 L d T floating-point operations
for N parameters, L layers, d numbers in the heads of a layer and sequences of T tokens (PaLM; Chowdhery et al. 2022,
arXiv:2204.02311, appendix B). This counts every pair of tokens, although causal attention needs half of them.
``MFU causal`` counts that half only, as `bpe pretrain` does. Peers that are "compiled" run under torch.compile: ours
layer by layer, as in `bpe pretrain --compile`, the others as a whole.

Generation: bfloat16 weights, drawn at random on the device; one text, no quantization. ``prefill`` is tokens per second
for a prompt of 2,048 tokens, ``decode`` for the tokens after a prompt of 128, each id read back before the next step.
"ours compiled" decodes with a compiled step and a CUDA graph, "transformers compiled" with a static cache and
torch.compile's "reduce-overhead". ``of memory`` is the share of the memory's rate at which decoding reads the weights
and the cache. ``greedy ids``: all peers read the greedy text of ours in float32, and their most likely ids are compared
with it. An id counts as equal if its logit in float32 is within --margin standard deviations of the best: with random
weights, rounding to bfloat16 swaps such ids.

Numbers in brackets are ratios: how many times as fast (or as small) the best of ours is. Each peer runs in a process of
its own (with --tiny, all run in one). A run that the time left does not suffice for is skipped, which is printed; the
seconds that runs need are estimates. ``memory`` is the peak of what torch allocates on the device (on a CPU, of the
process after its imports).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from common import choice, introduce, memory, number, reset_peak_memory, run_worker, show, skip_rebuilding
from torch_models import plain, transformers

TRAINERS = ("ours", "ours compiled", "plain", "plain compiled", "transformers", "transformers compiled")
GENERATORS = ("ours", "ours compiled", "transformers", "transformers compiled")
REFERENCE = "reference"  # plain PyTorch for training and ours for generation, in float32
WARMUP = 3  # first steps of training: their losses are compared, their times are not used
LEARNING_RATE = 3e-4

# Bytes per second of the device's memory, from NVIDIA's data sheets. The first name that the device's name contains
# counts. The bfloat16 peaks, from the same data sheets, are in model/training/throughput.py.
BANDWIDTHS = {
    "B200": 8.0e12,
    "H200": 4.8e12,
    "H100 PCIe": 2.0e12,
    "H100 NVL": 3.9e12,
    "H100": 3.35e12,
    "A100-SXM4-80GB": 2.039e12,
    "A100 80GB PCIe": 1.935e12,
    "A100": 1.555e12,
    "L40": 0.864e12,
    "L4": 0.3e12,
    "A40": 0.696e12,
    "A30": 0.933e12,
    "A10": 0.6e12,
    "RTX 6000 Ada": 0.96e12,
    "RTX 4090": 1.008e12,
    "RTX 3090": 0.936e12,
}


@dataclasses.dataclass(frozen=True)
class Section:
    """A table: one kind of work with one shape.

    Attributes:
        kind: "train" or "generate".
        shape: Fields of `ModelConfig`.
        sequences: Sequences in a batch of training.
        length: Tokens in a sequence of training, or in the prompt of prefill.
        prompt: Tokens before decoding.
        steps: Steps of training or decoding to time.
        greedy: Greedy ids to compare.
        seconds: Estimates of the time that a run takes: eager and compiled.
    """

    kind: str
    shape: Mapping[str, Any]
    sequences: int = 1
    length: int = 2048
    prompt: int = 128
    steps: int = 64
    greedy: int = 32
    seconds: tuple[int, int] = (20, 60)


_GPT = {"dim": 768, "n_layers": 12, "n_heads": 12, "n_kv_heads": 12, "hidden_dim": 2048, "vocab_size": 50304,
        "rope_theta": 10000.0, "max_seq_len": 1024, "tied_embeddings": True}  # fmt: skip
_LLAMA = {"n_kv_heads": 8, "vocab_size": 128256, "rope_theta": 500000.0, "n_heads": 32, "max_seq_len": 4096}
_1B = {**_LLAMA, "dim": 2048, "n_layers": 16, "hidden_dim": 8192, "tied_embeddings": True}  # Llama 3.2's
_8B = {**_LLAMA, "dim": 4096, "n_layers": 32, "hidden_dim": 14336}  # Llama 3's
_TINY = {"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "hidden_dim": 96, "vocab_size": 320,
         "rope_theta": 10000.0, "max_seq_len": 64, "tied_embeddings": True}  # fmt: skip
SECTIONS = {
    "train-124M": Section("train", _GPT, sequences=32, length=1024, steps=12, seconds=(15, 45)),
    "generate-1B": Section("generate", _1B, seconds=(15, 45)),
    "train-1B": Section("train", _1B, sequences=8, length=2048, steps=8, seconds=(20, 60)),
    "generate-8B": Section("generate", _8B, seconds=(25, 60)),
}
TINY = {name: Section(section.kind, _TINY, 2, 16, 8, 3, 6, (0, 0)) for name, section in SECTIONS.items()}

# --- the worker: one peer ---


class Device:
    """The device of a run, its clock and its memory."""

    def __init__(self, name: str) -> None:
        import torch

        self.torch, self.name, self.is_cuda = torch, name, name.startswith("cuda")
        self.imports = memory("VmRSS")

    def seconds(self, work: Callable[[], object]) -> float:
        """Return the seconds that work takes, on the device as well."""
        self.synchronize()
        begin = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - begin

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.is_cuda:
            self.torch.cuda.synchronize()

    def start_counting(self) -> None:
        """Forget the peak memory so far."""
        if self.is_cuda:
            self.torch.cuda.reset_peak_memory_stats()
        reset_peak_memory()

    def peak_memory(self) -> float:
        """Return the peak memory in MB."""
        if self.is_cuda:
            return float(self.torch.cuda.max_memory_allocated()) / 1e6
        return memory("VmHWM") - self.imports


def built(job: Mapping[str, Any], dtype: Any) -> Any:
    """Return a `Transformer` with random weights, drawn on the device in a dtype: the same in each run."""
    import torch

    from model import ModelConfig, Transformer

    usual = torch.get_default_dtype()
    torch.manual_seed(1)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(job["device"]):
            return Transformer(ModelConfig(**job["shape"]))
    finally:
        torch.set_default_dtype(usual)


def work(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run a peer.

    Args:
        job: The fields of `Section`, and "peer", "device", "backend" (of torch.compile) and "file" (for the logits of
            the reference).
    """
    skip_rebuilding()
    if "torch._dynamo" in sys.modules:  # with --tiny, from the run before
        import torch

        torch.compiler.reset()
    return (train if job["kind"] == "train" else generate)(job)


def train(job: Mapping[str, Any]) -> dict[str, Any]:
    """Train a few steps; return the losses of the first steps, tokens per second, and the peak memory."""
    import torch

    device, peer = Device(job["device"]), job["peer"]
    name, _, compiled = peer.partition(" ")
    start = built(job, torch.float32)
    config, weights = start.config, start.state_dict()
    with torch.device(job["device"]):
        maker = {"ours": functools.partial(ours, start), "transformers": transformers}.get(name, plain)
        model, loss_of = maker(config, weights)
    del start, weights, maker
    device.start_counting()
    if compiled:
        for part in model.layers if name == "ours" else [model]:
            part.compile(backend=job["backend"])
    steps = WARMUP if peer == REFERENCE else WARMUP + job["steps"]
    size = (steps, job["sequences"], job["length"] + 1)
    # As in text, few tokens are frequent: ids are drawn with the density 1 / (id + 1).
    drawn = torch.rand(WARMUP + job["steps"], *size[1:], generator=torch.Generator().manual_seed(0))[:steps]
    ids = (config.vocab_size**drawn - 1).long().clamp(0, config.vocab_size - 1).to(job["device"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    losses, seconds = [], []

    def step(window: torch.Tensor) -> None:
        with torch.autocast(torch.device(job["device"]).type, torch.bfloat16, enabled=peer != REFERENCE):
            loss = loss_of(window[:, :-1], window[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())

    for window in ids:
        seconds.append(device.seconds(lambda window=window: step(window)))  # type: ignore[misc]
    result = {"losses": losses[:WARMUP], "memory": device.peak_memory(), "first step": seconds[0]}
    if peer != REFERENCE:
        result["speed"] = job["sequences"] * job["length"] / median(seconds[WARMUP:])
    return result


def ours(model: Any, *_: object) -> tuple[Any, Callable[[Any, Any], Any]]:
    """Return the model and the loss that `bpe pretrain` uses."""
    from model.training.fused import fuse
    from model.training.loss import cross_entropy_sum

    fuse(model)
    return model, lambda inputs, targets: cross_entropy_sum(model, model.hidden(inputs), targets) / targets.numel()


class Ours:
    """This project's model, eager or with a compiled decoding step."""

    def __init__(self, model: Any, job: Mapping[str, Any]) -> None:
        self.model, self.backend = model, job["backend"] if job["peer"].endswith("compiled") else None

    def begin(self, capacity: int) -> None:
        """Start a text with an empty cache."""
        from model.generation.compiled_step import CompiledStep

        self.cache = self.model.new_cache(1, capacity)
        self.step = CompiledStep(self.model, self.cache, self.backend) if self.backend else None

    def read(self, ids: Any) -> Any:
        """Read ids [1, time], and return the logits [vocabulary] after the last of them."""
        if self.step is not None and ids.shape[1] == 1:
            return self.step(ids[0])[0]
        return self.model(ids, self.cache, last_only=True)[0, -1]


class Transformers:
    """Hugging Face's transformers, eager with a growing cache or compiled with a static cache."""

    def __init__(self, model: Any, job: Mapping[str, Any]) -> None:
        import torch

        with torch.device(job["device"]):
            self.model = transformers(model.config, model.state_dict())[0].eval()
        self.compiled = job["peer"].endswith("compiled")
        self.decode = self.model
        if self.compiled:
            options = {"mode": "reduce-overhead"} if job["backend"] == "inductor" else {"backend": job["backend"]}
            self.decode = torch.compile(self.model.forward, dynamic=False, **options)

    def begin(self, capacity: int) -> None:
        """Start a text with an empty cache."""
        from transformers import DynamicCache, StaticCache

        config = self.model.config
        self.cache = StaticCache(config, max_cache_len=capacity) if self.compiled else DynamicCache(config=config)
        self.length = 0

    def read(self, ids: Any) -> Any:
        """Read ids [1, time], and return the logits [vocabulary] after the last of them."""
        import torch

        places = torch.arange(self.length, self.length + ids.shape[1], device=ids.device)
        self.length += ids.shape[1]
        run = self.decode if ids.shape[1] == 1 else self.model
        given = {"position_ids": places[None], "past_key_values": self.cache, "use_cache": True, "logits_to_keep": 1}
        return run(input_ids=ids, **given).logits[0, -1]


def generate(job: Mapping[str, Any]) -> dict[str, Any]:
    """Read a text, then time prefill and decoding; the reference only writes the text and its logits."""
    import numpy as np
    import torch

    device, peer = Device(job["device"]), job["peer"]
    model = built(job, torch.bfloat16)
    for matrix in model.parameters():
        if matrix.dim() > 1:  # of a size that keeps the stream's, so that layers change it more than embeddings do
            torch.nn.init.normal_(matrix, std=matrix.shape[1] ** -0.5)
    if peer == REFERENCE:
        model = model.float()
    runner: Any = Transformers(model, job) if peer.startswith("transformers") else Ours(model, job)
    del model
    device.start_counting()
    vocabulary, result = job["shape"]["vocab_size"], {}
    prompt = torch.randint(vocabulary, (1, job["length"]), generator=torch.Generator().manual_seed(0))
    prompt, short = prompt.to(job["device"]), job["prompt"]
    with torch.inference_mode():
        # 1. The most likely ids, each after the same text.
        text = None if peer == REFERENCE else np.load(job["file"]).argmax(-1).tolist()
        runner.begin(short + max(job["greedy"], job["steps"]) + 8)
        rows = [runner.read(prompt[:, :short]).float()]
        for place in range(job["greedy"] - 1):
            id = int(rows[-1].argmax()) if text is None else text[place]
            rows.append(runner.read(torch.tensor([[id]], device=job["device"])).float())
        result["greedy"] = [int(row.argmax()) for row in rows]
        result["dtype"] = str(next(runner.model.parameters()).dtype)
        if text is None:
            np.save(job["file"], torch.stack(rows).cpu().numpy())
            return result
        # 2. Prefill, the best of three.
        seconds = []
        for _ in range(3):
            runner.begin(job["length"] + 8)
            seconds.append(device.seconds(lambda: runner.read(prompt)))
        result["prefill"] = job["length"] / min(seconds)
        # 3. Decoding, of the same number of slots as above, so that nothing is compiled again.
        runner.begin(short + max(job["greedy"], job["steps"]) + 8)
        last, seconds = runner.read(prompt[:, :short]).argmax().view(1, 1), []

        def step() -> None:
            nonlocal last
            last = runner.read(last).argmax().view(1, 1)
            last.item()

        for _ in range(job["steps"]):
            seconds.append(device.seconds(step))
        result["first step"], result["decode"] = seconds[0], 1 / median(seconds)
    return {**result, "memory": device.peak_memory()}


# --- the main process ---


@dataclasses.dataclass(frozen=True)
class Peaks:
    """What the device can do at most.

    Attributes:
        flops: bfloat16 floating-point operations per second; None if unknown.
        bandwidth: Bytes per second of its memory; None if unknown.
    """

    flops: float | None
    bandwidth: float | None


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections, peers = list(SECTIONS), list(TRAINERS)
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="the device (default: auto)")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, traced but not compiled, to check the script")
    parser.add_argument(
        "--sections", type=choice(sections), default=sections, help=f"of {', '.join(sections)} (default: all)"
    )
    parser.add_argument("--peers", type=choice(peers), default=peers, help=f"of {', '.join(peers)} (default: all)")
    parser.add_argument("--minutes", type=positive, default=9.5, help="time for everything, in minutes (default: 9.5)")
    parser.add_argument("--tolerance", type=float, default=0.01, help="largest loss difference, nats (default: 0.01)")
    parser.add_argument("--margin", type=positive, default=0.1, help="largest logit difference (default: 0.1)")
    parser.add_argument("--peak-tflops", type=float, help="bfloat16 peak of the device (default: its data sheet's)")
    parser.add_argument("--peak-bandwidth", type=float, metavar="GB/S", help="of the memory (default: data sheet's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to FILE")
    return parser.parse_args()


def main() -> None:
    """Run the peers, compare their results, and print a table for each section."""
    began = time.monotonic()
    arguments = parse_arguments()
    _, versions = introduce({"torch": "torch", "transformers": "transformers"})
    device, name = chosen_device(arguments.device)
    peaks = peaks_of(name, arguments.peak_tflops, arguments.peak_bandwidth)
    sections = {key: (TINY if arguments.tiny else SECTIONS)[key] for key in arguments.sections}
    found: dict[str, dict[str, dict[str, Any]]] = {key: {} for key in sections}
    with tempfile.TemporaryDirectory() as directory:
        for key, peer in runs_of(sections, present(arguments.peers, versions)):
            left = arguments.minutes * 60 - (time.monotonic() - began)
            section, results = sections[key], found[key]
            needed = section.seconds[peer.endswith("compiled")]
            if peer != REFERENCE and "error" in results.get(REFERENCE, {"error": ""}):
                continue
            if left < needed:
                print(f"skipped: {key}, {peer}: takes about {needed} s, and {max(0, left):.0f} s are left")
                continue
            show(f"{key}: {peer}")
            job = {**dataclasses.asdict(section), "peer": peer, "device": device}
            job |= {"backend": "eager" if arguments.tiny else "inductor", "file": f"{directory}/{key}.npy"}
            threads = os.cpu_count() or 1
            if arguments.tiny:
                results[peer] = work(job) | {"memory": None}  # all run in this process
            else:
                results[peer] = run_worker(__file__, job, threads, timeout=left)
            if peer != REFERENCE and section.kind == "generate" and "error" not in results[peer]:
                results[peer] |= compare_ids(results[peer]["greedy"], job["file"], arguments.margin)
            if arguments.json:  # after each run, in case that the machine is taken away
                written = {"device": name, "versions": versions, "results": found}
                arguments.json.write_text(json.dumps(written, indent=2))
    show()
    for key, section in sections.items():
        print_section(key, section, found[key], peaks, arguments)
    if arguments.tiny:
        print("\nthe shapes are tiny and nothing was compiled, so the rates mean nothing")


def present(peers: Sequence[str], versions: Mapping[str, str]) -> list[str]:
    """Return the peers without transformers if it is not installed."""
    return [peer for peer in peers if not peer.startswith("transformers") or "transformers" in versions]


def runs_of(sections: Mapping[str, Section], peers: Sequence[str]) -> list[tuple[str, str]]:
    """Return the section and the peer of each run: first the references and ours, last the others compiled."""
    runs = []
    for key, section in sections.items():
        known = TRAINERS if section.kind == "train" else GENERATORS
        runs += [(key, peer) for peer in (REFERENCE, *(peer for peer in peers if peer in known))]
    return sorted(runs, key=lambda run: run[1].endswith("compiled") and not run[1].startswith("ours"))


def chosen_device(wanted: str) -> tuple[str, str]:
    """Print the device; return torch's name and its own name.

    Exits when the device is not available.
    """
    from bpe import InputError
    from bpe.processor import processor_name
    from model.device import choose

    try:
        device = choose(wanted).name
    except InputError as error:
        sys.exit(str(error))
    if device.startswith("cuda"):
        import torch

        properties = torch.cuda.get_device_properties(device)
        name = properties.name
        print(f"device: {name}, {properties.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}")
        return device, name
    name = f"{processor_name()} (a CPU)"
    print(f"device: {name}")
    return "cpu", name


def peaks_of(name: str, tflops: float | None, gigabytes: float | None) -> Peaks:
    """Return the peaks of a device, given or from its data sheet, and print them or that they are not known."""
    from model.training.throughput import known_peak

    flops = known_peak(name) if tflops is None else tflops * 1e12
    listed = next((rate for known, rate in BANDWIDTHS.items() if known in name), None)
    bandwidth = listed if gigabytes is None else gigabytes * 1e9
    for what, value, unit, given, option in (
        ("MFU", flops, "TFLOP/s, dense bfloat16", tflops, "--peak-tflops"),
        ("share of the memory's rate", bandwidth, "TB/s", gigabytes, "--peak-bandwidth"),
    ):
        if value is None:
            print(f"the {what} is left out: no peak is known for this device; give it with {option}")
        else:
            source = "as given" if given is not None else "NVIDIA's data sheet"
            print(f"the {what} is relative to {number(value / 1e12)} {unit} ({source})")
    return Peaks(flops, bandwidth)


def positive(text: str) -> float:
    """Return a number above 0, for argparse."""
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def compare_ids(ids: Sequence[int], file: str, margin: float) -> dict[str, Any]:
    """Compare most likely ids with the reference's logits in a .npy file, float32 [ids, vocabulary].

    Returns:
        "equal", the number of equal ids; "gap", the largest difference between the best logit and that of an id, in
        standard deviations of the logits; and "same", whether the gap is within the margin.
    """
    import numpy as np

    logits = np.load(file)
    best, chosen = logits.max(-1), logits[np.arange(len(ids)), list(ids)]
    gap = float(((best - chosen) / logits.std(-1)).max())
    return {"equal": int((chosen == best).sum()), "gap": gap, "same": gap <= margin}


def flops_per_token(shape: Mapping[str, Any], length: int) -> tuple[float, float]:
    """Return the floating-point operations to train on a token: by PaLM's formula, and with causal attention halved.

    PaLM's is 6 N + 12 L d T, where d is the number of heads times their size. All parameters count, because the shapes
    of training tie the embeddings, so that each parameter is used in a product.
    """
    from model import ModelConfig

    config = ModelConfig(**shape)
    attention = 12 * config.n_layers * config.n_heads * config.head_dim * length
    return 6.0 * config.n_parameters + attention, config.training_flops(length) / length


def decode_bytes(section: Section) -> float:
    """Return the bytes that a decoding step reads: all bfloat16 weights but those of unused embeddings, and the cache.

    The cache counts with its tokens halfway through the steps that are timed.
    """
    from model import ModelConfig

    config = ModelConfig(**section.shape)
    lookup = 0 if config.tied_embeddings else config.vocab_size * config.dim
    tokens = section.prompt + section.steps // 2
    return 2.0 * (config.n_parameters - lookup) + config.kv_cache_bytes(1, tokens, 2)


def print_section(
    key: str, section: Section, results: Mapping[str, Mapping[str, Any]], peaks: Peaks, arguments: argparse.Namespace
) -> None:
    """Print the table of a section."""
    reference = results.get(REFERENCE)
    if reference is None:
        return
    if "error" in reference:
        print(f"\n{key}: {REFERENCE}: {reference['error']}")
        return
    rows = {peer: dict(result) for peer, result in results.items() if peer != REFERENCE}
    for peer, row in rows.items():
        if "error" in row:
            print(f"\n{key}: {peer}: {row['error']}")
    rows = {peer: row for peer, row in rows.items() if "error" not in row}
    if section.kind == "train":
        for row in rows.values():
            pairs = zip(row["losses"], reference["losses"], strict=True)
            row["difference"] = max(abs(loss - expected) for loss, expected in pairs)
            row["same"] = row["difference"] <= arguments.tolerance
        print_training(key, section, rows, peaks)
    else:
        print_generation(key, section, rows, peaks)


def print_training(key: str, section: Section, rows: Mapping[str, Mapping[str, Any]], peaks: Peaks) -> None:
    """Print the rates of training."""
    flops = flops_per_token(section.shape, section.length)
    print(f"\n{key}: {section.sequences} sequences of {section.length:,} tokens, {flops[0] / 1e9:.3g} GFLOP a token")
    print(f"{'':22}{'tokens/s':>18}{'MFU':>8}{'MFU causal':>12}{'memory, MB':>19}{'loss':>10}")
    for peer, row in rows.items():
        shares = [f"{row['speed'] * each / peaks.flops:.1%}" if peaks.flops else "-" for each in flops]
        speed, size = ratio(rows, peer, "speed"), ratio(rows, peer, "memory", less=True)
        mark = "" if row["same"] else "!"
        print(f"{peer:22}{speed:>18}{shares[0]:>8}{shares[1]:>12}{size:>19}{row['difference']:>10.1e}{mark}")


def print_generation(key: str, section: Section, rows: Mapping[str, Mapping[str, Any]], peaks: Peaks) -> None:
    """Print the rates of prefill and decoding."""
    read = decode_bytes(section)
    print(f"\n{key}: decoding reads {read / 1e9:.3g} GB a token")
    titles = f"{'prefill, tokens/s':>20}{'decode, tokens/s':>19}{'of memory':>11}{'memory, MB':>19}"
    print(f"{'':22}{titles}  greedy ids")
    for peer, row in rows.items():
        share = f"{row['decode'] * read / peaks.bandwidth:.0%}" if peaks.bandwidth else "-"
        prefill, decode = (ratio(rows, peer, column) for column in ("prefill", "decode"))
        size = ratio(rows, peer, "memory", less=True)
        greedy = f"{row['equal']} of {len(row['greedy'])}, gap {row['gap']:.3f}{'' if row['same'] else '!'}"
        print(f"{peer:22}{prefill:>20}{decode:>19}{share:>11}{size:>19}  {greedy}")


def ratio(rows: Mapping[str, Mapping[str, Any]], peer: str, column: str, less: bool = False) -> str:
    """Format a number, with its ratio to the best of ours where both have the right results."""
    value = rows[peer][column]
    if value is None:
        return "-"
    own = [row[column] for name, row in rows.items() if name.startswith("ours") and row["same"]]
    if not own or not rows[peer]["same"]:
        return number(value)
    return f"{number(value)} ({value / min(own) if less else max(own) / value:5.2f})"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(work(json.loads(sys.argv[2]))))
    else:
        main()
