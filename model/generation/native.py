"""A model that reads quantized weights with kernels of our own: what `Transformer` computes, faster, on a CPU.

It is used as a `Transformer` is by generation, and takes its weights from any checkpoint, as they are stored. Each kind
of weights is multiplied in at least 16 bits with activations of 16 bits, sums are of 32, so that results are those of
the weights and not of the kernels.
"""

from __future__ import annotations

import atexit
import threading
import weakref

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bpe.errors import InputError
from model import _core
from model.checkpoint.assemble import checked_tensors, expected_shapes
from model.checkpoint.dequantize import PLAIN, dequantize
from model.checkpoint.opened import Checkpoint
from model.config import ModelConfig
from model.transformer import rotary_table

_KINDS = {dtype: kind for kind, dtype in PLAIN.items()}
CACHES = (torch.float16, torch.bfloat16, torch.int8)
"""What keys and values may be kept as."""


class NativeCache:
    """Keys and values of `batch` texts, in the layout that the kernels read; used as a `KVCache` is.

    Padding takes no slot in memory: each text has what it has, in the order of its positions.
    """

    def __init__(
        self, config: ModelConfig, batch: int = 1, *, capacity: int = 0, dtype: torch.dtype = torch.float16
    ) -> None:
        if batch <= 0:
            raise InputError(f"a cache for {batch} sequences; batch must be positive")
        if capacity < 0:
            raise InputError(f"a cache of {capacity} positions; it cannot be negative")
        if dtype not in CACHES:
            raise InputError(f"a cache of {dtype}; there are those of {', '.join(map(str, CACHES))}")
        kind = str(dtype).removeprefix("torch.")
        self.core = _core.Cache(kind, config.n_layers, config.n_kv_heads, config.head_dim, batch)
        self._real = np.zeros((batch, 0), bool)  # which slots are tokens, not padding: [batch, length]
        self.filled = [0] * batch
        """How many tokens each text has."""
        self.reserve(capacity)

    @property
    def length(self) -> int:
        """Slots that are filled, padding included."""
        return self._real.shape[1]

    @property
    def batch(self) -> int:
        """How many sequences it holds."""
        return len(self.filled)

    @property
    def capacity(self) -> int:
        """How many tokens of each sequence have memory."""
        return self.core.capacity

    @property
    def bytes(self) -> int:
        """Bytes of memory taken for keys and values, filled or not."""
        return self.core.bytes

    def reserve(self, count: int) -> None:
        """Make room for `count` more tokens of each sequence."""
        needed = max(self.filled) + count
        if needed > self.capacity:
            self.core.reserve(max(needed, 2 * self.capacity if self.capacity else 0), self.filled)

    def advance(self, real: npt.NDArray[np.bool_]) -> None:
        """Count the tokens that every layer has seen: bool [batch, count], False for padding."""
        self._real = np.concatenate((self._real, real), axis=1)
        self.filled = [old + new for old, new in zip(self.filled, real.sum(1).tolist(), strict=True)]

    def truncate(self, length: int) -> None:
        """Forget all slots from `length` on, to go on differently from there. Memory stays for the next ones."""
        if not 0 <= length <= self.length:
            raise InputError(f"cannot cut a cache of {self.length} positions to {length}")
        self._real = self._real[:, :length]
        self.filled = self._real.sum(1).tolist()

    def select(self, rows: Tensor) -> None:
        """Keep these sequences, in this order: int64 [new batch]; one that is named several times is copied."""
        self.core.select(rows.tolist(), self.filled)
        self._real = self._real[rows.numpy()]
        self.filled = self._real.sum(1).tolist()


class NativeModel:
    """The model of a checkpoint: `logits = NativeModel.of(checkpoint)(ids)`, as `Transformer` gives them.

    It has as many threads as torch had when it was made. They sleep between calls.
    """

    device = torch.device("cpu")

    def __init__(self, config: ModelConfig, kinds: dict[str, str], kernel: str = "") -> None:
        """kinds: the type of every matrix. kernel: "amx", "avx512", "avx2", "neon" or "plain"; the best by default."""
        self.config = config
        self._reading = threading.Lock()
        _MODELS.add(self)
        try:
            self.core = _core.Decoder(
                dim=config.dim,
                layers=config.n_layers,
                heads=config.n_heads,
                kv_heads=config.n_kv_heads,
                head_dim=config.head_dim,
                hidden=config.hidden_dim,
                vocabulary=config.vocab_size,
                epsilon=config.norm_eps,
                tied=config.tied_embeddings,
                query_bias=config.qkv_bias,
                output_bias=config.wo_bias,
                kinds=kinds,
                threads=torch.get_num_threads(),
                kernel=kernel,
            )
        except ValueError as error:
            raise InputError(str(error)) from None

    @classmethod
    def of(cls, checkpoint: Checkpoint, kernel: str = "") -> NativeModel:
        """The model of a checkpoint, with its weights as they are stored.

        Raises InputError where there are no kernels for them, and where a tensor is missing, unknown, misshapen, or
        holds numbers or scales that are not finite; the message names it.
        """
        reason = refusal(checkpoint)
        if reason is not None:
            raise InputError(f"{checkpoint.source}: {reason}")
        expected = expected_shapes(checkpoint.config)
        if checkpoint.rows is None:
            kinds = dict.fromkeys(expected, _KINDS[checkpoint.dtype])
            model = cls(checkpoint.config, kinds, kernel)
            for name, tensor in checked_tensors(checkpoint):
                model.put(name, tensor if tensor.dim() > 1 else tensor.float())
            return model
        wrong = [*(expected.keys() ^ checkpoint.kinds.keys())]
        if wrong:
            theirs = checkpoint.name_of(wrong[0])
            problem = "without" if wrong[0] in expected else "with a tensor that a model of this configuration has not:"
            raise InputError(f"{checkpoint.source}: {problem} {theirs}")
        try:
            model = cls(checkpoint.config, dict(checkpoint.kinds), kernel)
            for name, shape, data in checkpoint.rows():
                theirs = checkpoint.name_of(name)
                if shape != expected[name]:
                    raise InputError(f"{theirs} has the shape {[*shape]}, expected {[*expected[name]]}")
                if len(shape) > 1:
                    model.put(name, data)
                else:
                    model.put(name, dequantize(data, checkpoint.kinds[name], torch.float32).float())
        except InputError as error:
            raise InputError(f"{checkpoint.source}: {error}") from None
        return model

    def __call__(
        self, ids: Tensor, cache: NativeCache | None = None, *, positions: Tensor | None = None, last_only: bool = False
    ) -> Tensor:
        """Logits of the token that follows each of `ids`, as `Transformer.forward` gives them, in float32.

        positions: integers [batch, time], -1 for padding; the others continue what the cache holds. Padding's logits
            are zeros.
        Raises InputError where the positions go beyond the context, or do not follow each other.
        """
        if ids.dim() != 2 or ids.shape[1] == 0:
            raise InputError(f"ids have the shape {list(ids.shape)}; expected [batch, time] with a time of at least 1")
        batch = len(ids)
        if cache is not None and cache.batch != batch:
            raise InputError(f"the cache holds {cache.batch} sequences and was given {batch}")
        if positions is not None and positions.shape != ids.shape:
            raise InputError(f"positions have the shape {list(positions.shape)}, ids {list(ids.shape)}")
        with self._reading:
            return self._forward(ids, self.new_cache(batch) if cache is None else cache, positions, last_only)

    def _forward(self, ids: Tensor, cache: NativeCache, positions: Tensor | None, last_only: bool) -> Tensor:
        batch, count = ids.shape
        # 1. Where each token stands, and which are tokens. By NumPy, whose calls for a few numbers take less time.
        first = np.array(cache.filled, np.int64)[:, None]
        if positions is None:
            real = np.ones((batch, count), bool)
            at = first + np.arange(count)
        else:
            at = positions.numpy()
            real = at >= 0
            if not np.array_equal(at[real], (first + real.cumsum(1) - 1)[real]):
                raise InputError("positions do not continue what the cache holds")
        end = int(at.max()) + 1
        if end > self.config.max_seq_len:
            raise InputError(
                f"{end} tokens, but the context of the model holds {self.config.max_seq_len}; shorten the input"
            )
        given = ids.numpy()
        if not 0 <= given.min() <= given.max() < self.config.vocab_size:
            raise InputError(f"ids go from 0 to {self.config.vocab_size - 1}")
        cache.reserve(count)
        # 2. All tokens one after the other, text by text; padding is left out.
        texts = np.broadcast_to(np.arange(batch, dtype=np.int64)[:, None], real.shape)
        tokens = np.stack((given, texts, at), axis=-1)[real]  # [tokens, 3]
        given_out = real.copy()
        if last_only:
            given_out[:, :-1] = False
        logits = torch.empty(batch, 1 if last_only else count, self.config.vocab_size)
        places = given_out[:, -1:] if last_only else given_out
        found = logits if places.all() else torch.empty(int(places.sum()), self.config.vocab_size)
        self._read(tokens, cache, end, given_out[real], found.numpy().reshape(-1, self.config.vocab_size))
        if found is not logits:
            chosen = torch.from_numpy(places)
            logits[chosen], logits[~chosen] = found, 0
        cache.advance(real)
        return logits

    def _read(
        self,
        tokens: npt.NDArray[np.int64],
        cache: NativeCache,
        end: int,
        wanted: npt.NDArray[np.bool_],
        logits: npt.NDArray[np.float32],
    ) -> None:
        """Some tokens at a time; between two calls, Ctrl-C is heard."""
        rotation = torch.view_as_real(rotary_table(self.config, max(end, 1), self.device)).flatten(1).numpy()
        done = 0
        for start in range(0, len(tokens), _core.MOST_TOKENS):
            some = slice(start, start + _core.MOST_TOKENS)
            asked = wanted[some].nonzero()[0]
            self.core.forward(tokens[some], cache.core, rotation, asked, logits[done : done + len(asked)])
            done += len(asked)

    def new_cache(self, batch: int = 1, capacity: int = 0, dtype: torch.dtype = torch.float16) -> NativeCache:
        """An empty cache for this model. float16 by default; bfloat16 has the range of float32; int8 half the size."""
        return NativeCache(self.config, batch, capacity=capacity, dtype=dtype)

    def put(self, name: str, data: memoryview | Tensor) -> None:
        """Set a tensor to the bytes of its rows as a file has them, or to numbers."""
        bytes_ = data if isinstance(data, memoryview) else data.contiguous().flatten().view(torch.uint8).numpy()
        try:
            self.core.put(name, bytes_)
        except ValueError as error:
            raise InputError(str(error)) from None


_MODELS: weakref.WeakSet[NativeModel] = weakref.WeakSet()


@atexit.register
def _read_no_more() -> None:
    """Wait for models that other threads read with, and let these not begin anew.

    A thread that comes back from C++, be it ours or torch's, when the interpreter is gone aborts the process.
    """
    for model in list(_MODELS):
        model._reading.acquire(timeout=1)


def kernels() -> list[str]:
    """The kernels that this processor can run, the best first; the last is "plain"."""
    return _core.kernels()


def refusal(checkpoint: Checkpoint) -> str | None:
    """Why `NativeModel` cannot compute with these weights as they are stored; None if it can."""
    unknown = sorted({kind for kind in checkpoint.kinds.values() if kind not in _core.KINDS})
    if unknown:
        return f"there are no kernels for {', '.join(unknown)}"
    if not checkpoint.kinds and checkpoint.dtype not in _KINDS:
        return f"there are no kernels for {str(checkpoint.dtype).removeprefix('torch.')}"
    columns = {name: shape[1] for name, shape in expected_shapes(checkpoint.config).items() if len(shape) > 1}
    for name, kind in checkpoint.kinds.items():
        if columns.get(name, 0) % _core.KINDS[kind]:
            theirs, block = checkpoint.name_of(name), _core.KINDS[kind]
            return f"{theirs} has rows of {columns[name]} numbers, which are no whole {kind} blocks of {block}"
    return None
