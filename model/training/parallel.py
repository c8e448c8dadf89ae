"""Training on several processes: what is cut, what is exchanged, and who speaks.

The processes stand on a mesh of two dimensions, as torchrun starts them one for each device:

    data     each takes its share of a step's sequences. With "ddp" each holds the whole model, and gradients are
             averaged (DistributedDataParallel); with "fsdp" weights, gradients and the optimizer's state are cut, too,
             and each layer's weights are gathered while they are needed (fully_shard, FSDP2).
    tensor   neighbours compute one matrix product together: wq, wk, wv, w1, w3 and the output cut by rows, wo and w2 by
             columns, the embeddings by the vocabulary (Shoeybi et al. 2019, arXiv:1909.08053). Between the products
             activations are whole on each, norms included.

All of it is applied to a model from outside, in place; `model/transformer.py` knows nothing of it. Weights, gradients
and what is exchanged are float32; the matrix products are rounded to bfloat16 by autocast as in one process. FSDP's
own mixed precision, which would gather bfloat16 weights in half the bytes, is not used: it would round the residual
stream and the norms as well, and the losses would no longer be those of one process.

On a CPU processes talk by gloo, on GPUs by NCCL. The tests run gloo; the GPU side was written without one at hand.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import functools
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from bpe.errors import InputError
from model.transformer import RMSNorm, Transformer

Kind = Literal["ddp", "fsdp"]
Model = TypeVar("Model", bound=nn.Module)

DATA, TENSOR = "data", "tensor"


class Parallel:
    """The processes that train one model together: those torchrun started, or one alone, which exchanges nothing.

        with Parallel("fsdp", tensor_parallel=2, device="cuda") as parallel:
            loss = parallel.prepare(model, loss)
            ...

    kind: how the data dimension is used; None takes "fsdp" with tensor parallelism, else "ddp".
    tensor_parallel: how many neighbours share each matrix; it must divide the number of processes.
    device: where to compute; with "cuda", each process takes the GPU of its local rank.
    timeout: seconds to wait for the others before it counts as a failure.

    Leaving the context after an error ends all processes, of which one tells: rank 0 where it failed, too, as with
    wrong settings, else the one that failed first. The others end silently with status 1; those that wait for one that
    is gone are woken by its connection's end (gloo), or ended by torchrun.

    Raises InputError for a number of processes that does not fit.
    """

    def __init__(
        self, kind: Kind | None = None, tensor_parallel: int = 1, device: str = "cpu", timeout: float = 600.0
    ) -> None:
        self.rank, self.size = _number("RANK", 0), _number("WORLD_SIZE", 1)
        self.tensor = tensor_parallel
        self.kind: Kind = kind or ("fsdp" if tensor_parallel > 1 else "ddp")
        self.device = torch.device(device)
        self._asked, self._timeout = kind, timedelta(seconds=timeout)
        self._store: Store | None = None
        self._wrapped: nn.parallel.DistributedDataParallel | None = None
        self._plain: nn.Module | None = None

    def __enter__(self) -> Parallel:
        if self.size > 1:
            self._join()
        try:
            self._check()
            if self.size > 1:
                shape = (self.size // self.tensor, self.tensor)
                self.mesh = init_device_mesh(self.device.type, shape, mesh_dim_names=(DATA, TENSOR))
        except InputError as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._store is None:
            return
        if error is None:
            dist.destroy_process_group()
        elif not self._speaks():
            raise SystemExit(1) from None
        elif isinstance(error, dist.DistError) or "gloo" in str(error):
            # The error tells of a socket; the reader wants to know that it was not this process.
            raise InputError(f"another of the {self.size} processes has gone, or kept the rest waiting") from error

    @property
    def is_main(self) -> bool:
        """Whether this process logs, writes and talks."""
        return self.rank == 0

    @property
    def data(self) -> int:
        """How many shares a step's sequences are cut into."""
        return self.size // self.tensor

    @property
    def data_rank(self) -> int:
        """Which of the shares is this process's; neighbours in the tensor dimension have the same."""
        return self.rank // self.tensor

    # What is cut.

    def prepare(self, model: Transformer, loss: Callable[[Any, Any], Tensor]) -> Callable[[Any], Tensor]:
        """Cut the model, in place; returns the loss as the processes compute it together: a function of a batch.

        To be called before the optimizer is made. Every process must have built the same model, whole.
        loss: the sum of the losses of a batch, given the model and the batch.
        Raises InputError where the model cannot be cut into as many parts.
        """
        if self.size > 1:
            self._plain = _empty_copy(model)
        if self.tensor > 1:
            _cut_matrices(model, self.mesh[TENSOR])
        if self.data > 1 and self.kind == "fsdp":
            _shard(model, self.mesh[DATA])
        if self.data > 1 and self.kind == "ddp":
            self._wrapped = nn.parallel.DistributedDataParallel(
                _Loss(model, loss), process_group=self.mesh[DATA].get_group()
            )
            return self._wrapped
        return functools.partial(loss, model)

    def rehearse(self, loss: Callable[[Any], Tensor], batch: Callable[[int], Sequence[Any]]) -> None:
        """Do once, for nothing, what each step does, so that the steps that count are all alike.

        DDP orders the gradients that it exchanges together by the first step, and that order decides in which order
        processes are summed: without this, the first step after a checkpoint would differ in the last bits.
        """
        if self._wrapped is not None:
            loss(batch(0)[0].part(self.data_rank, self.data)).backward()  # type: ignore[no-untyped-call]
            self._wrapped.zero_grad(set_to_none=True)

    @contextlib.contextmanager
    def accumulating(self, model: nn.Module, last: bool) -> Iterator[None]:
        """Around the loss and the backward pass of each part of a step: gradients are exchanged after the last only."""
        if self._wrapped is not None and not last:
            with self._wrapped.no_sync():
                yield
            return
        if self.data > 1 and self.kind == "fsdp":
            model.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield

    def clip(self, parameters: Iterable[Tensor], highest: float) -> float:
        """Scale all gradients such that their norm, taken together, is at most `highest`; returns what it was."""
        parameters = list(parameters)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = _whole(torch.nn.utils.get_total_norm(gradients))
        if self.tensor > 1:  # summed in another order on each row of the mesh, and must not differ by a bit
            norm.fill_(self.main(norm.item()))
        torch.nn.utils.clip_grads_with_norm_(parameters, highest, norm)
        return norm.item()

    def gather(self, model: Model) -> Model | None:
        """The whole model on rank 0, in the CPU's memory where it was cut; None elsewhere. All must call it."""
        if self._plain is None or not any(_is_cut(p) for p in model.parameters()):
            return model if self.is_main else None
        _close(model)
        whole: dict[int, nn.Parameter] = {}
        for empty, parameter in zip(self._plain.parameters(), model.parameters(), strict=True):
            tensor = _whole(parameter.detach())
            if self.is_main:
                whole[id(empty)] = nn.Parameter(tensor.cpu(), requires_grad=parameter.requires_grad)
        if not self.is_main:
            return None
        gathered: Model = copy.deepcopy(self._plain, whole)  # type: ignore[assignment]
        return gathered.train(model.training)

    # What is exchanged.

    def sum(self, number: float) -> float:
        """The sum over the shares of the data, in float64."""
        if self.data == 1:
            return number
        together = torch.tensor(number, dtype=torch.float64)
        dist.all_reduce(together, group=self.mesh[DATA].get_group())
        return together.item()

    def any(self, number: int | None) -> int | None:
        """The highest of all processes' numbers, None where none has one: a signal that any of them has received."""
        if self.size == 1:
            return number
        highest = torch.tensor(number or 0)
        dist.all_reduce(highest, dist.ReduceOp.MAX)
        return int(highest) or None

    def main(self, number: float) -> float:
        """Rank 0's number on all: what follows from its clock."""
        if self.size == 1:
            return number
        said = torch.tensor(number, dtype=torch.float64)
        dist.broadcast(said, 0)
        return said.item()

    def barrier(self) -> None:
        """Wait until all are here."""
        if self.size > 1:
            dist.barrier()

    # Who is there, and who speaks.

    def _join(self) -> None:
        backend = "gloo"
        if self.device.type == "cuda":
            self.device = torch.device("cuda", _number("LOCAL_RANK", 0))
            torch.cuda.set_device(self.device)
            backend = "cpu:gloo,cuda:nccl"
        self._store, rank, size = next(rendezvous("env://", timeout=self._timeout))
        dist.init_process_group(
            backend, store=PrefixStore("bpe", self._store), rank=rank, world_size=size, timeout=self._timeout
        )

    def _check(self) -> None:
        started = "WORLD_SIZE" in os.environ
        if self.tensor < 1:
            raise InputError(f"tensor parallelism over {self.tensor} processes; it must be at least 1")
        if not started and (self._asked or self.tensor > 1):
            what = f"{self._asked} is" if self._asked else "tensor parallelism is"
            raise InputError(
                f"{what} for several processes; start them with torchrun --nproc-per-node N -m bpe.cli ..."
            )
        if self.size % self.tensor:
            raise InputError(f"{self.size} processes cannot stand in rows of {self.tensor} for tensor parallelism")
        if self.kind == "ddp" and self.tensor > 1 and self.data > 1:
            raise InputError("tensor parallelism goes together with fsdp, not with ddp, which takes matrices as whole")

    def _speaks(self) -> bool:
        """Whether to tell of a failure; a process that is not to waits until the other has."""
        assert self._store is not None
        try:
            if not self.is_main:
                self._store.wait(["failed"], timedelta(seconds=2))
        except dist.DistStoreError:  # rank 0 does not fail by itself
            pass
        try:
            if self._store.add("failed", 1) == 1:
                atexit.register(self._store.set, "told", "")
                return True
            self._store.wait(["told"], timedelta(seconds=10))
        except dist.DistError:  # told or not, the one that keeps the store has gone
            pass
        return False


class _Loss(nn.Module):
    """A loss as a module, for it is a module's forward that DistributedDataParallel wraps."""

    def __init__(self, model: nn.Module, loss: Callable[[Any, Any], Tensor]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any) -> Tensor:
        return self.loss(self.model, batch)


def _number(name: str, default: int) -> int:
    """What torchrun says of a process, in the environment."""
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise InputError(f"the environment variable {name} is {value!r}; torchrun sets it to a number")
    return int(value)


def _cut_matrices(model: Transformer, mesh: DeviceMesh) -> None:
    from torch.distributed.tensor import DTensor, Replicate, distribute_module
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        ParallelStyle,
        RowwiseParallel,
        parallelize_module,
    )

    class Whole(ParallelStyle):
        """A norm: computed by each as it is, but a DTensor as all are, for the optimizer takes no mixture."""

        def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
            return distribute_module(
                module,
                device_mesh,
                None,
                lambda _, inputs, mesh: DTensor.from_local(inputs[0], mesh, [Replicate()]),  # type: ignore[arg-type]
                lambda _, output, mesh: output.to_local(),
            )

    config, parts = model.config, mesh.size()
    for name in ("n_heads", "n_kv_heads", "hidden_dim"):
        if getattr(config, name) % parts:
            raise InputError(
                f"{name} ({getattr(config, name)}) is not divisible by {parts}, the processes of tensor parallelism"
            )
    by_rows, by_columns = ("wq", "wk", "wv", "w1", "w3"), ("wo", "w2")
    plan: dict[str, ParallelStyle] = {
        "tok_embeddings": RowwiseParallel(input_layouts=Replicate()),
        "output": ColwiseParallel(output_layouts=Replicate()),
    }
    for path, module in model.named_modules():
        name = path.rpartition(".")[2]
        if name in by_rows + by_columns:
            if type(module) is not nn.Linear:
                raise InputError(f"tensor parallelism cuts plain matrices, and {path} is a {type(module).__name__}")
            plan[path] = ColwiseParallel() if name in by_rows else RowwiseParallel()
        elif isinstance(module, RMSNorm):
            plan[path] = Whole()
    parallelize_module(model, mesh, plan)
    if config.tied_embeddings:
        model.output.weight = model.tok_embeddings.weight  # both were cut by the vocabulary, each for itself
    # PyTorch warns that the norm of all gradients is summed along one dimension of the mesh after the other.
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)


def _shard(model: Transformer, mesh: DeviceMesh) -> None:
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    # Embeddings, the last norm and the output: gathered by `hidden`, and kept, so that `head` finds the output whole.
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    register_fsdp_forward_method(model, "hidden")
    # With both dimensions `hidden` gives a view of a DTensor; nobody writes into it.
    warnings.filterwarnings("ignore", message=".*returned a view tensor", category=UserWarning)


def _close(model: nn.Module) -> None:
    """Cut again what a forward pass without a backward pass has left gathered."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _is_cut(tensor: Tensor) -> bool:
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def _whole(tensor: Tensor) -> Tensor:
    """A tensor's whole, gathered from all if it was cut."""
    return tensor.full_tensor() if _is_cut(tensor) else tensor  # type: ignore[attr-defined]


def _empty_copy(model: Model) -> Model:
    """The same modules around parameters without memory: what `gather` fills."""
    empty = {id(p): nn.Parameter(p.to("meta"), requires_grad=p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, empty)
