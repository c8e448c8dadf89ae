"""Training on several processes: sharding, communication, and which process reports an error.

torchrun starts one process for each device. The processes form a mesh of two dimensions:

    data     Each process takes its share of a step's sequences. With "ddp" each holds the whole model, and gradients
             are averaged (DistributedDataParallel). With "fsdp" weights, gradients and the optimizer's state are
             sharded, too, and the weights of a layer are gathered while they are needed (fully_shard, FSDP2).
    tensor   Neighbours compute each matrix product together: wq, wk, wv, w1, w3 and the output are sharded by rows, wo
             and w2 by columns, the embeddings by the vocabulary (Shoeybi et al. 2019, arXiv:1909.08053). Between the
             products, norms included, each process has the whole activations.

All of this is applied to a model from outside, in place; `model/transformer.py` does not know about it. Weights,
gradients and communication are float32. Matrix products are rounded to bfloat16 by autocast, as in one process. FSDP's
own mixed precision, which would gather bfloat16 weights in half the bytes, is not used: it would round the residual
stream and the norms as well, and the losses would no longer be those of one process.

Processes communicate through gloo on CPUs, and through NCCL on GPUs. The tests run gloo; the GPU side was written
without a GPU at hand.
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
    """The processes that train one model together: those that torchrun started, or a single process.

        with Parallel("fsdp", tensor_parallel=2, device="cuda") as parallel:
            loss = parallel.prepare(model, loss)
            ...

    Leaving the context after an error ends all processes, and one of them reports the error: rank 0 if it failed, too,
    as it does with wrong settings, and otherwise the process that failed first. The others exit silently with status 1.
    A process that waits for one that has ended is woken by the closed connection (gloo), or ended by torchrun.

    Attributes:
        rank: Number of this process, from 0 on.
        size: Number of processes.
        tensor: Number of processes in the tensor dimension.
        kind: How the data dimension is used.
        device: Device of this process.
    """

    def __init__(
        self, kind: Kind | None = None, tensor_parallel: int = 1, device: str = "cpu", timeout: float = 600.0
    ) -> None:
        """Read the environment variables that torchrun sets. The `with` block connects the processes.

        Args:
            kind: How the data dimension is used; None for "fsdp" with tensor parallelism, and "ddp" without it.
            tensor_parallel: Number of neighbours that share each matrix; a divisor of the number of processes.
            device: Device to compute on. With "cuda", each process takes the GPU of its local rank.
            timeout: Seconds to wait for other processes before this counts as a failure.

        Raises:
            InputError: Here, when the environment is damaged; on entering, when the number of processes does not fit.
        """
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
        elif not self._reports():
            raise SystemExit(1) from None
        elif isinstance(error, dist.DistError) or "gloo" in str(error):
            # The error speaks of a socket. The user has to know that it was not this process that failed.
            raise InputError(
                f"another of the {self.size} processes ended or stopped responding; its own output may say why"
            ) from error

    @property
    def is_main(self) -> bool:
        """Whether this process logs, writes files and prints."""
        return self.rank == 0

    @property
    def data(self) -> int:
        """Number of shares that a step's sequences are divided into."""
        return self.size // self.tensor

    @property
    def data_rank(self) -> int:
        """Number of this process's share. Neighbours in the tensor dimension have the same share."""
        return self.rank // self.tensor

    # Sharding.

    def prepare(self, model: Transformer, loss: Callable[[Any, Any], Tensor]) -> Callable[[Any], Tensor]:
        """Shard the model, in place, before the optimizer is built.

        Args:
            model: The whole model, the same on every process.
            loss: Returns the summed loss of a batch, given the model and the batch.

        Returns:
            The loss as a function of this process's part of a batch.

        Raises:
            InputError: When the model cannot be sharded over this number of processes.
        """
        if self.size > 1:
            self._plain = _empty_copy(model)
        if self.tensor > 1:
            shard_matrices(model, self.mesh[TENSOR])
        if self.data > 1 and self.kind == "fsdp":
            _shard_layers(model, self.mesh[DATA])
        if self.data > 1 and self.kind == "ddp":
            self._wrapped = nn.parallel.DistributedDataParallel(
                _Loss(model, loss), process_group=self.mesh[DATA].get_group()
            )
            return self._wrapped
        return functools.partial(loss, model)

    def rehearse(self, loss: Callable[[Any], Tensor], batch: Callable[[int], Sequence[Any]]) -> None:
        """Run one forward and backward pass, and discard the gradients, so that all later steps are alike.

        DDP groups the gradients that it exchanges together by the order of the first step, which also decides in which
        order processes are summed. Without this pass, the first step after a checkpoint would differ in the last bits.

        Args:
            loss: The function that `prepare` returned.
            batch: Returns the micro-batches of a batch number.
        """
        if self._wrapped is not None:
            loss(batch(0)[0].part(self.data_rank, self.data)).backward()  # type: ignore[no-untyped-call]
            self._wrapped.zero_grad(set_to_none=True)

    @contextlib.contextmanager
    def accumulating(self, model: nn.Module, last: bool) -> Iterator[None]:
        """Exchange gradients after the last micro-batch of a step only.

        The `with` block holds the loss and the backward pass of one micro-batch.
        """
        if self._wrapped is not None and not last:
            with self._wrapped.no_sync():
                yield
            return
        if self.data > 1 and self.kind == "fsdp":
            model.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield

    def clip(self, parameters: Iterable[Tensor], highest: float) -> float:
        """Scale all gradients so that their norm, taken together, is at most `highest`; return the norm before."""
        parameters = list(parameters)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = _whole(torch.nn.utils.get_total_norm(gradients))
        if self.tensor > 1:  # each row of the mesh sums in another order, but the norm must be the same bits
            norm.fill_(self.main(norm.item()))
        torch.nn.utils.clip_grads_with_norm_(parameters, highest, norm)
        return norm.item()

    def gather(self, model: Model) -> Model | None:
        """Return the whole model on rank 0, and None elsewhere. All processes must call it.

        A model that was sharded is gathered in the CPU's memory.
        """
        if self._plain is None or not any(_is_sharded(p) for p in model.parameters()):
            return model if self.is_main else None
        _reshard(model)
        whole: dict[int, nn.Parameter] = {}
        for empty, parameter in zip(self._plain.parameters(), model.parameters(), strict=True):
            tensor = _whole(parameter.detach())
            if self.is_main:
                whole[id(empty)] = nn.Parameter(tensor.cpu(), requires_grad=parameter.requires_grad)
        if not self.is_main:
            return None
        gathered: Model = copy.deepcopy(self._plain, whole)  # type: ignore[assignment]
        return gathered.train(model.training)

    # Communication.

    def sum(self, number: float) -> float:
        """Return the sum of a number over the data dimension, computed in float64."""
        if self.data == 1:
            return number
        together = torch.tensor(number, dtype=torch.float64)
        dist.all_reduce(together, group=self.mesh[DATA].get_group())
        return together.item()

    def any(self, number: int | None) -> int | None:
        """Return the highest number of all processes, or None when none has one: a signal that any of them received."""
        if self.size == 1:
            return number
        highest = torch.tensor(number or 0)
        dist.all_reduce(highest, dist.ReduceOp.MAX)
        return int(highest) or None

    def main(self, number: float) -> float:
        """Return rank 0's number on all processes, such as a time by its clock."""
        if self.size == 1:
            return number
        said = torch.tensor(number, dtype=torch.float64)
        dist.broadcast(said, 0)
        return said.item()

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()

    # Start and failure.

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
            raise InputError(f"tensor parallelism over {self.tensor} processes; it needs at least 1")
        if not started and (self._asked or self.tensor > 1):
            what = f"{self._asked} is" if self._asked else "tensor parallelism is"
            raise InputError(
                f"{what} for several processes; start them with torchrun --nproc-per-node N -m bpe.cli ..."
            )
        if self.size % self.tensor:
            raise InputError(
                f"{self.size} processes cannot be divided into groups of {self.tensor} for tensor parallelism"
            )
        if self.kind == "ddp" and self.tensor > 1 and self.data > 1:
            raise InputError("ddp needs whole matrices, so it excludes tensor parallelism; use fsdp")

    def _reports(self) -> bool:
        """Return whether this process reports a failure. A process that does not waits until another has reported."""
        assert self._store is not None
        try:
            if not self.is_main:
                self._store.wait(["failed"], timedelta(seconds=2))
        except dist.DistStoreError:  # rank 0 has not failed
            pass
        try:
            if self._store.add("failed", 1) == 1:
                atexit.register(self._store.set, "reported", "")
                return True
            self._store.wait(["reported"], timedelta(seconds=10))
        except dist.DistError:  # reported or not, the process that keeps the store has ended
            pass
        return False


class _Loss(nn.Module):
    """A loss as a module, because DistributedDataParallel wraps the forward of a module."""

    def __init__(self, model: nn.Module, loss: Callable[[Any, Any], Tensor]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any) -> Tensor:
        return self.loss(self.model, batch)


def _number(name: str, default: int) -> int:
    """Return the value of an environment variable that torchrun sets."""
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise InputError(f"the environment variable {name} is {value!r}; torchrun sets it to a number")
    return int(value)


def shard_matrices(model: Transformer, mesh: DeviceMesh) -> None:
    """Shard the matrices of a model over the tensor dimension, in place.

    Args:
        model: The whole model.
        mesh: The mesh of the tensor dimension.

    Raises:
        InputError: When the number of heads or the hidden dimension is not divisible, or a matrix is not plain.
    """
    from torch.distributed.tensor import DTensor, Replicate, distribute_module
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        ParallelStyle,
        RowwiseParallel,
        parallelize_module,
    )

    class Whole(ParallelStyle):
        """A norm, which each process computes whole. It is a DTensor all the same: the optimizer takes no mixture."""

        def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
            return distribute_module(
                module,
                device_mesh,
                None,
                lambda _, inputs, mesh: DTensor.from_local(inputs[0], mesh, [Replicate()]),  # type: ignore[arg-type]
                lambda _, output, mesh: output.to_local(),
            )

    config, parts = model.config, mesh.size()
    if config.qk_norm == "all":
        raise InputError('qk_norm is "all": norms over all heads cannot be sharded for tensor parallelism; use fsdp')
    if config.n_experts:
        raise InputError(f"n_experts is {config.n_experts}: tensor parallelism does not shard experts; use fsdp")
    for name in ("n_heads", "n_kv_heads", "hidden_dim"):
        if getattr(config, name) % parts:
            raise InputError(
                f"{name} ({getattr(config, name)}) is not divisible by {parts}, the number of tensor parallel processes"
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
                raise InputError(
                    f"tensor parallelism needs plain nn.Linear layers, but {path} is a {type(module).__name__}"
                )
            plan[path] = ColwiseParallel() if name in by_rows else RowwiseParallel()
        elif isinstance(module, RMSNorm):
            plan[path] = Whole()
    parallelize_module(model, mesh, plan)
    if config.tied_embeddings:
        model.output.weight = model.tok_embeddings.weight  # both were sharded by the vocabulary, separately
    # Silence a warning that the norm of all gradients is summed along one mesh dimension after the other.
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)


def _shard_layers(model: Transformer, mesh: DeviceMesh) -> None:
    """Shard all weights over the data dimension with FSDP2, in place."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    # Embeddings, the last norm and the output are gathered by `hidden` and kept, so that `head` has the whole output.
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    register_fsdp_forward_method(model, "hidden")
    # With both dimensions `hidden` returns a view of a DTensor. No code writes into it.
    warnings.filterwarnings("ignore", message=".*returned a view tensor", category=UserWarning)


def _reshard(model: nn.Module) -> None:
    """Shard again the weights that a forward pass without a backward pass has left gathered."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _is_sharded(tensor: Tensor) -> bool:
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def _whole(tensor: Tensor) -> Tensor:
    """Return the whole tensor, gathered from all processes if it is sharded."""
    return tensor.full_tensor() if _is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def _empty_copy(model: Model) -> Model:
    """Return the same modules around parameters without memory, for `gather` to fill."""
    empty = {id(p): nn.Parameter(p.to("meta"), requires_grad=p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, empty)
