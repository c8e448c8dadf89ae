"""Training on two and four processes, which communicate through gloo, compared with training on one process.

The processes are forked once, from a server that has torch loaded, and run all cases. The tests compare the results.
"""

from __future__ import annotations

import dataclasses
import io
import multiprocessing
import os
import shutil
import signal
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from bpe.errors import InputError
from model import ModelConfig, Transformer
from model.generation.completions import generate_ids
from model.training.dialogs import Dialog, Pair, batch_of, texts_of
from model.training.loop import train as train_loop
from model.training.loss import IGNORED, Evaluation, TokenBatch, evaluate, next_token_loss
from model.training.metrics import read_metrics
from model.training.parallel import Kind, Parallel, shard_matrices
from model.training.preferences import PairBatch
from model.training.settings import TrainConfig
from model.training.state import TrainState
from model.training.task import About

pytestmark = pytest.mark.slow  # processes are started for each test

CONFIG = ModelConfig(
    dim=32, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=48, vocab_size=259, max_seq_len=64, tied_embeddings=True
)
GEMMA_2 = dataclasses.replace(
    CONFIG, windows=(5, 0), attention_softcap=4.0, logits_softcap=2.0, post_norm=True, norm_offset=True,
    activation="gelu_tanh", embedding_multiplier=5.5,
)  # fmt: skip
# Some experts of a layer get no token in the part of a process.
MIXTURE = dataclasses.replace(CONFIG, n_experts=24, n_experts_per_token=2, qk_norm="head")
STEPS, HIGHEST_NORM = 3, 0.5


@dataclass(frozen=True)
class Case:
    """A way to train a model."""

    processes: int
    kind: Kind | None
    tensor: int = 1
    tied: bool = True
    dtype: torch.dtype = torch.float32
    texts: int = 7
    parts: int = 2
    """Number of texts in a step, and of micro-batches."""
    config: ModelConfig = CONFIG

    @property
    def shape(self) -> ModelConfig:
        """The shape of the model."""
        return dataclasses.replace(self.config, tied_embeddings=self.tied)


EXACT = Case(2, "ddp", texts=8, parts=1)
CASES = [
    EXACT,
    Case(2, "fsdp", tied=False),
    Case(2, "fsdp", dtype=torch.bfloat16),
    Case(2, None, 2, tied=False),
    Case(4, "ddp"),
    Case(4, "fsdp"),
    Case(4, "fsdp", 2, dtype=torch.bfloat16),
    Case(2, "ddp", config=GEMMA_2),
    Case(2, "fsdp", config=GEMMA_2),
    Case(2, None, 2, config=GEMMA_2),
    Case(2, "ddp", config=MIXTURE),
    Case(2, "fsdp", config=MIXTURE),
]


@dataclass(frozen=True)
class Run:
    """A run of the loop in a directory of its name, new or resumed from a copy of another run."""

    name: str
    processes: int
    kind: Kind
    tensor: int = 1
    goes_on: str | None = None
    stop_after: int | None = None


RUNS = [
    Run("ddp", 4, "ddp"),
    Run("ddp stopped", 4, "ddp", stop_after=2),
    Run("ddp resumed", 4, "ddp", goes_on="ddp stopped"),
    Run("both", 4, "fsdp", 2),
    Run("both stopped", 4, "fsdp", 2, stop_after=2),
    Run("both resumed", 4, "fsdp", 2, goes_on="both stopped"),
    Run("alone, then tensor", 2, "fsdp", 2, goes_on="alone stopped"),
    Run("both, then fsdp", 2, "fsdp", goes_on="both stopped"),
]


@dataclass
class Found:
    """The results of training, on one process."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    cut: int = 0
    """Number of weights that this process held."""
    early: float | None = None
    """Sum of one weight's gradient after the first micro-batch of a step; None where there was none yet."""
    weights: dict[str, Any] | None = None


def batches(step: int, texts: int, parts: int) -> list[TokenBatch]:
    """Return the data of a step: texts, some of whose tokens are no targets."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(CONFIG.vocab_size, (texts, 17), generator=generator)
    targets = ids[:, 1:].masked_fill(torch.rand(texts, 16, generator=generator) < 0.2, IGNORED)
    return [TokenBatch(ids[rows, :-1], targets[rows]) for rows in torch.arange(texts).tensor_split(parts)]


def train(parallel: Parallel, case: Case) -> Found:
    """Train as the loop does, in a few lines."""
    found = Found()
    model = Transformer(case.shape)
    model.init_weights(torch.Generator().manual_seed(0))
    loss = parallel.prepare(model, next_token_loss)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1, fused=True)
    found.cut = sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in model.parameters())
    for step in range(STEPS):
        data, total = batches(step, case.texts, case.parts), 0.0
        scale = parallel.data / sum(batch.n_targets for batch in data)
        for number, batch in enumerate(data):
            with parallel.accumulating(model, last=number == len(data) - 1):
                with torch.autocast("cpu", torch.bfloat16, enabled=case.dtype == torch.bfloat16):
                    part = loss(batch.part(parallel.data_rank, parallel.data)) * scale
                part.backward()
                total += part.item()
            if number == 0:
                found.early = None if (gradient := model.norm.weight.grad) is None else gradient.sum().item()
        found.losses.append(parallel.sum(total) / parallel.data)
        found.norms.append(parallel.clip(model.parameters(), HIGHEST_NORM))
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            next_token_loss(model, data[0])  # an evaluation leaves FSDP's outermost weights gathered
    whole = parallel.gather(model)
    if whole is not None:
        found.weights = {name: value.detach().clone().numpy() for name, value in whole.state_dict().items()}
    return found


class Learning:
    """A minimal task."""

    kind = "learning"

    def settings(self) -> dict[str, Any]:
        return {}

    def about(self) -> About:
        return About("learning", "numbers", 4)

    def model(self) -> Transformer:
        model = Transformer(CONFIG)
        model.init_weights(torch.Generator().manual_seed(0))
        return model

    def batch(self, number: int) -> list[TokenBatch]:
        return batches(number, texts=7, parts=2)

    def describe(self, number: int) -> str:
        return f"batch {number}"

    def loss(self, model: Transformer, batch: TokenBatch) -> torch.Tensor:
        return next_token_loss(model, batch)

    def evaluate(self, model: Transformer) -> Evaluation | None:
        return evaluate(model, batches(1000, texts=3, parts=1), torch.ones(CONFIG.vocab_size, dtype=torch.long))

    def sample(self, model: Transformer) -> str | None:
        return str(list(generate_ids(model, [1, 2, 3], max_tokens=2, temperature=0)))

    def save(self, directory: Path, model: Transformer) -> None:
        np.savez(directory / "weights.npz", **{key: value.numpy() for key, value in model.state_dict().items()})


def learn(run: Run, directory: Path, parallel: Parallel) -> bool:
    """Run the loop; return whether it was interrupted. Only the last process receives the signal."""
    make_step = TrainState.make_step

    def stopped(self: TrainState, share: float) -> dict[str, float]:
        if self.step + 1 == run.stop_after and parallel.rank == parallel.size - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return make_step(self, share)

    settings = TrainConfig(steps=4, eval_every=2, learning_rate=1e-2, gradient_clip=0.5, dtype="float32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainState, "make_step", stopped)
        try:
            train_loop(Learning(), directory / run.name, settings, progress=io.StringIO(), parallel=parallel)
        except KeyboardInterrupt:
            return True
    return False


def work(rank: int, ports: list[int], directory: Path, results: Any) -> None:
    """Run all cases in one of the processes, with the environment variables of torchrun."""
    torch.set_num_threads(1)
    found: list[Any] = []
    for case, port in zip([*CASES, *RUNS], ports, strict=True):
        if rank >= case.processes:
            found.append(None)
            continue
        os.environ.update(
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="True",
            RANK=str(rank), WORLD_SIZE=str(case.processes),
        )  # fmt: skip
        if rank == 0 and isinstance(case, Run) and case.goes_on:
            shutil.copytree(directory / case.goes_on, directory / case.name)
        with Parallel(case.kind, case.tensor, timeout=600) as parallel:
            found.append(train(parallel, case) if isinstance(case, Case) else learn(case, directory, parallel))
    results.put((rank, found))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the runs, with a whole and an interrupted run by a single process."""
    directory = tmp_path_factory.mktemp("runs")
    torch.set_num_threads(1)
    with Parallel() as parallel:
        assert not learn(Run("alone", 1, "ddp"), directory, parallel)
        assert learn(Run("alone stopped", 1, "ddp", stop_after=2), directory, parallel)
    return directory


@pytest.fixture(scope="module")
def found(directory: Path) -> dict[Case | Run, list[Any]]:
    """Return the results of each process, by case."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(
        ["torch.distributed.fsdp", "torch.distributed.tensor.parallel", "model.training.parallel"]
    )
    stores = [
        dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) for _ in range(len(CASES) + len(RUNS))
    ]
    ports = [store.port for store in stores]
    results = processes.Queue()
    workers = [processes.Process(target=work, args=(rank, ports, directory, results), daemon=True) for rank in range(4)]
    for worker in workers:
        worker.start()
    by_rank = dict(results.get(timeout=600) for _ in workers)
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    every = enumerate([*CASES, *RUNS])
    return {case: [by_rank[rank][number] for rank in range(case.processes)] for number, case in every}


@pytest.fixture(scope="module")
def alone() -> dict[Case, Found]:
    """Return the results of a single process."""
    torch.set_num_threads(1)
    found = {}
    for case in CASES:
        with Parallel() as parallel:
            found[case] = train(parallel, case)
    return found


def name(case: Case) -> str:
    relative = {CONFIG: "", GEMMA_2: " gemma2", MIXTURE: " experts"}[case.config]
    return f"{case.processes} {case.kind} tensor={case.tensor} tied={case.tied} {case.dtype} {case.texts}{relative}"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_losses_norms_and_weights_match_one_process(
    case: Case, found: dict[Case, list[Found]], alone: dict[Case, Found]
) -> None:
    rounding = 2e-6 if case.dtype == torch.float32 else 2e-3
    for each in found[case]:
        assert each.losses == pytest.approx(alone[case].losses, rel=rounding)
        assert each.norms == pytest.approx(alone[case].norms, rel=10 * rounding)
    weights, expected = found[case][0].weights, alone[case].weights
    assert weights is not None
    assert expected is not None
    assert weights.keys() == expected.keys()
    for key in expected:
        # On average: Adam's first steps follow the sign of a gradient, and rounding decides the sign of tiny ones.
        assert np.abs(weights[key] - expected[key]).mean() < rounding
    assert all(each.weights is None for each in found[case][1:])


def test_two_processes_match_one_process_with_two_micro_batches_bit_for_bit(found: dict[Case, list[Found]]) -> None:
    with Parallel() as parallel:
        alone = train(parallel, dataclasses.replace(EXACT, parts=2))
    for each in found[EXACT]:
        assert each.losses == alone.losses
        assert each.norms == alone.norms
    weights = found[EXACT][0].weights
    assert weights is not None
    assert alone.weights is not None
    assert all(np.array_equal(weights[key], alone.weights[key]) for key in alone.weights)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_each_process_holds_its_share_of_the_weights(case: Case, found: dict[Case, list[Found]]) -> None:
    whole = case.shape.n_parameters
    if case.kind == "ddp":
        assert [each.cut for each in found[case]] == [whole] * case.processes
    else:
        norms = case.shape.parameters()["norms"]  # whole on each process of the tensor dimension
        shares = [each.cut for each in found[case]]
        assert sum(shares) == whole + (case.tensor - 1) * norms
        assert max(shares) < 1.2 * whole / case.processes


def test_gradients_are_exchanged_after_the_last_micro_batch_only(found: dict[Case, list[Found]]) -> None:
    early = [each.early for each in found[Case(4, "ddp")]]
    assert len(set(early)) == 4
    assert all(each.early is None for each in found[Case(4, "fsdp")])


def records(run: Path) -> list[dict[str, Any]]:
    """Return the records of the metrics, without times."""
    times = {"seconds", "tokens_per_second", "mfu", "wait"}
    return [{key: record[key] for key in record.keys() - times} for record in read_metrics(run / "metrics.jsonl")]


@pytest.mark.parametrize("name", ["ddp", "both"])
def test_a_run_on_four_processes_resumes_bit_for_bit_after_an_interrupt_to_one(
    name: str, found: dict[Run, list[bool]], directory: Path
) -> None:
    assert [stopped for run in RUNS if run.name == f"{name} stopped" for stopped in found[run]] == [True] * 4
    assert max(record["step"] for record in records(directory / f"{name} stopped")) == 2
    assert [path.name for path in (directory / f"{name} stopped/checkpoints").iterdir()].count("step-000002") == 1
    assert records(directory / f"{name} resumed") == records(directory / name)
    whole, resumed = (np.load(directory / each / "weights.npz") for each in (name, f"{name} resumed"))
    assert all(np.array_equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.parametrize(
    "name", ["ddp", "both", "alone, then tensor", "both, then fsdp", "ddp, then alone", "both, then alone"]
)
def test_any_number_of_processes_resumes_any_checkpoint(
    name: str, found: dict[Run, list[bool]], directory: Path
) -> None:
    if name.endswith("then alone"):
        shutil.copytree(directory / name.replace(", then alone", " stopped"), directory / name)
        with Parallel() as parallel:
            assert not learn(Run(name, 1, "ddp"), directory, parallel)
    for record, expected in zip(records(directory / name), records(directory / "alone"), strict=True):
        assert record.pop("text", None) == expected.pop("text", None)
        assert (record.pop("kind"), record) == (expected.pop("kind"), pytest.approx(expected, rel=1e-5))
    weights, wanted = (np.load(directory / each / "weights.npz") for each in (name, "alone"))
    assert all(np.abs(weights[key] - wanted[key]).mean() < 1e-5 for key in wanted)


def test_parts_of_a_batch_cover_it_and_are_padded_without_targets() -> None:
    batch = TokenBatch(
        torch.arange(10).reshape(5, 2), torch.arange(10).reshape(5, 2), torch.zeros(5, 2, dtype=torch.long)
    )
    parts = [batch.part(number, 3) for number in range(3)]
    assert [part.inputs.shape for part in parts] == [(2, 2)] * 3
    assert [part.n_targets for part in parts] == [4, 4, 2]
    assert torch.cat([part.targets for part in parts])[:5].equal(batch.targets)
    assert all(part.positions is not None and part.positions.shape == (2, 2) for part in parts)
    assert batch.part(0, 1).inputs.equal(batch.inputs)


@pytest.mark.parametrize("packed", [False, True])
def test_parts_of_preferences_hold_whole_pairs_and_must_be_even(packed: bool) -> None:
    def dialog(first: int, length: int) -> Dialog:
        return Dialog("", list(range(first, first + length)), [False] + [True] * (length - 1))

    pairs = [Pair(dialog(10 * number, number + 3), dialog(100 + 10 * number, 3)) for number in range(6)]
    texts = batch_of([pairs[:2], pairs[2:3], pairs[3:5], pairs[5:]], packed)
    batch = PairBatch(texts, torch.arange(6.0))
    for number, share in enumerate((range(3), range(3, 6))):
        part = batch.part(number, 2)
        assert part.reference.tolist() == [*share]
        firsts = [int(part.texts.inputs[text][0]) for text in texts_of(part.texts)]
        assert firsts == [first for pair in share for first in (10 * pair, 100 + 10 * pair)]
    assert sum(batch.part(number, 2).texts.n_targets for number in range(2)) == texts.n_targets
    with pytest.raises(InputError, match="5 processes cannot share the . rows of a step evenly"):
        batch.part(0, 5)


@pytest.mark.parametrize(
    ("size", "arguments", "message"),
    [
        (None, {"kind": "fsdp"}, "fsdp is for several processes; start them with torchrun"),
        (None, {"tensor_parallel": 2}, "tensor parallelism is for several processes"),
        ("4", {"tensor_parallel": 3}, "4 processes cannot be divided into groups of 3"),
        ("4", {"tensor_parallel": 0}, "over 0 processes"),
        (
            "4",
            {"kind": "ddp", "tensor_parallel": 2},
            "ddp needs whole matrices, so it excludes tensor parallelism; use fsdp",
        ),
        ("two", {}, "WORLD_SIZE is 'two'"),
    ],
)
def test_an_invalid_number_of_processes_is_refused(
    size: str | None, arguments: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Parallel, "_join", lambda self: None)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size:
        monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(InputError, match=message), Parallel(**arguments):
        pass


@pytest.mark.parametrize("name", ["n_heads", "n_kv_heads", "hidden_dim"])
def test_a_model_that_cannot_be_sharded_is_refused(name: str) -> None:
    sizes = {"n_heads": 6, "n_kv_heads": 6, "hidden_dim": 48, "head_dim": 8} | {name: 4 if name != "n_kv_heads" else 2}
    if name == "n_heads":
        sizes["n_kv_heads"] = 4
    model = Transformer(dataclasses.replace(CONFIG, **sizes))
    mesh: Any = types.SimpleNamespace(size=lambda: 3)
    with pytest.raises(InputError, match=rf"{name} \(\d+\) is not divisible by 3"):
        shard_matrices(model, mesh)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"qk_norm": "all"}, 'qk_norm is "all".*use fsdp'),
        ({"n_experts": 4, "n_experts_per_token": 2}, "n_experts is 4.*use fsdp"),
    ],
)
def test_parts_that_tensor_parallelism_does_not_shard_are_refused(fields: dict[str, Any], message: str) -> None:
    mesh: Any = types.SimpleNamespace(size=lambda: 2)
    with pytest.raises(InputError, match=message):
        shard_matrices(Transformer(dataclasses.replace(CONFIG, **fields)), mesh)
