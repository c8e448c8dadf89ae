"""A model that computes what `Transformer` computes, faster, with our own CPU kernels for quantized weights.

Generation uses it like a `Transformer`. It takes the weights of any checkpoint as they are stored. Weights of every
kind are multiplied in at least 16 bits with activations of 16 bits and summed in 32 bits, so that the precision of a
result is that of the weights, not of the kernels.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Iterable

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
"""The dtypes in which keys and values can be stored."""


class NativeCache:
    """The keys and values of several texts in the layout of the kernels, with the interface of `KVCache`.

    Padding takes no memory: each text stores only its own tokens, in the order of their positions.
    """

    def __init__(
        self, config: ModelConfig, batch: int = 1, *, capacity: int = 0, dtype: torch.dtype = torch.float16
    ) -> None:
        """Create a cache without tokens.

        Args:
            config: The configuration of the model.
            batch: The number of texts.
            capacity: The number of tokens of each text to reserve memory for. Memory grows when it runs out.
            dtype: The dtype of keys and values, one of `CACHES`.

        Raises:
            InputError: When an argument is out of range.
        """
        if batch <= 0:
            raise InputError(f"the batch of a cache is {batch}; it must be positive")
        if capacity < 0:
            raise InputError(f"the capacity of a cache is {capacity}; it must not be negative")
        if dtype not in CACHES:
            raise InputError(f"the dtype of a cache is {dtype}; it must be one of {', '.join(map(str, CACHES))}")
        kind = str(dtype).removeprefix("torch.")
        self.core = _core.Cache(kind, config.n_layers, config.n_kv_heads, config.head_dim, batch)
        self._real = np.zeros((batch, 0), bool)  # [batch, length]: which slots are tokens, not padding
        self.filled = [0] * batch
        """The number of tokens of each text."""
        self.reserve(capacity)

    @property
    def length(self) -> int:
        """The number of filled slots, including padding."""
        return self._real.shape[1]

    @property
    def batch(self) -> int:
        """The number of texts."""
        return len(self.filled)

    @property
    def capacity(self) -> int:
        """The number of tokens of each text that have memory."""
        return self.core.capacity

    @property
    def bytes(self) -> int:
        """The size of the memory for keys and values, filled or not, in bytes."""
        return self.core.bytes

    def reserve(self, count: int) -> None:
        """Reserve memory for `count` more tokens of each text."""
        needed = max(self.filled) + count
        if needed > self.capacity:
            self.core.reserve(max(needed, 2 * self.capacity if self.capacity else 0), self.filled)

    def advance(self, real: npt.NDArray[np.bool_]) -> None:
        """Record the slots that every layer has filled: bool [batch, count], False for padding."""
        self._real = np.concatenate((self._real, real), axis=1)
        self.filled = [old + new for old, new in zip(self.filled, real.sum(1).tolist(), strict=True)]

    def truncate(self, length: int) -> None:
        """Remove all slots from `length` on, and keep their memory.

        Raises:
            InputError: When the cache has fewer slots.
        """
        if not 0 <= length <= self.length:
            raise InputError(f"cannot truncate a cache of {self.length} slots to {length}")
        self._real = self._real[:, :length]
        self.filled = self._real.sum(1).tolist()

    def select(self, rows: Tensor) -> None:
        """Keep these texts, in this order: int64 [new batch]. A text that is named several times is copied."""
        self.core.select(rows.tolist(), self.filled)
        self._real = self._real[rows.numpy()]
        self.filled = self._real.sum(1).tolist()


class NativeModel:
    """A model with native kernels: `logits = NativeModel.of(checkpoint)(ids)`, with the interface of `Transformer`.

    It has as many threads as torch had when the model was made. They sleep between calls.
    """

    device = torch.device("cpu")

    def __init__(self, config: ModelConfig, kinds: dict[str, str], kernel: str = "") -> None:
        """Create a model without weights; `put` sets them.

        Args:
            config: The configuration.
            kinds: The stored type of every tensor, by Meta's name.
            kernel: "amx", "avx512", "avx2", "neon" or "plain". Defaults to the best that this processor can run.

        Raises:
            InputError: When the core does not support the configuration or the kernel.
        """
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
        """Return the model of a checkpoint, with its weights as they are stored.

        Args:
            checkpoint: The checkpoint to read.
            kernel: The name of the kernels, as for the constructor.

        Raises:
            InputError: When there are no kernels for the stored types, or a tensor is missing, unknown, misshapen or
                has numbers or scales that are not finite. The message names the tensor.
        """
        reason = refusal(checkpoint)
        if reason is not None:
            raise InputError(f"{checkpoint.source}: {reason}")
        if checkpoint.rows is not None:
            return cls._of_rows(checkpoint, checkpoint.rows(), kernel)
        kinds = dict.fromkeys(expected_shapes(checkpoint.config), _KINDS[checkpoint.dtype])
        model = cls(checkpoint.config, kinds, kernel)
        for name, tensor in checked_tensors(checkpoint):
            model.put(name, tensor if tensor.dim() > 1 else tensor.float())
        return model

    @classmethod
    def _of_rows(
        cls, checkpoint: Checkpoint, rows: Iterable[tuple[str, tuple[int, ...], memoryview]], kernel: str
    ) -> NativeModel:
        """Return the model of a checkpoint whose file names a type for each tensor."""
        expected = expected_shapes(checkpoint.config)
        for name in expected.keys() ^ checkpoint.kinds.keys():
            theirs = checkpoint.name_of(name)
            problem = f"missing {theirs}" if name in expected else f"unknown tensor {theirs!r}"
            raise InputError(f"{checkpoint.source}: {problem}; the file is incomplete, or belongs to another model")
        try:
            model = cls(checkpoint.config, dict(checkpoint.kinds), kernel)
            for name, shape, data in rows:
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
        """Return the logits of the token that follows each id, as `Transformer.forward` does.

        Args:
            ids: Integers [batch, time]. With a cache, they continue its tokens and are added to it.
            cache: The cache; None reads the ids alone.
            positions: Integers [batch, time], -1 for padding; the others continue the positions in the cache.
            last_only: Return the logits of the last id only.

        Returns:
            float32 [batch, time, vocabulary], or [batch, 1, vocabulary] with `last_only`. Logits of padding are zeros.

        Raises:
            InputError: When a shape is wrong, an id is unknown, the tokens exceed the context, or the positions do not
                continue those in the cache.
        """
        if ids.dim() != 2 or ids.shape[1] == 0:
            raise InputError(f"ids have the shape {list(ids.shape)}; expected [batch, time] with at least one id")
        batch = len(ids)
        if cache is not None and cache.batch != batch:
            raise InputError(f"the cache holds {cache.batch} texts, but ids has {batch}")
        if positions is not None and positions.shape != ids.shape:
            raise InputError(f"positions have the shape {list(positions.shape)}, but ids have {list(ids.shape)}")
        with self._reading:
            return self._forward(ids, self.new_cache(batch) if cache is None else cache, positions, last_only)

    def _forward(self, ids: Tensor, cache: NativeCache, positions: Tensor | None, last_only: bool) -> Tensor:
        batch, count = ids.shape
        # 1. Compute positions. NumPy's calls for a few numbers take less time than torch's.
        at, real = self._positions(cache, positions, count)
        end = int(at.max()) + 1
        given = ids.numpy()
        self._check(given, end)
        cache.reserve(count)
        # 2. List all tokens text by text, without padding.
        texts = np.broadcast_to(np.arange(batch, dtype=np.int64)[:, None], real.shape)
        tokens = np.stack((given, texts, at), axis=-1)[real]  # [tokens, 3]
        wanted = real.copy()
        if last_only:
            wanted[:, :-1] = False
        # 3. Read them. Logits of padding are zeros.
        logits = torch.empty(batch, 1 if last_only else count, self.config.vocab_size)
        places = wanted[:, -1:] if last_only else wanted
        found = logits if places.all() else torch.empty(int(places.sum()), self.config.vocab_size)
        self._read(tokens, cache, end, wanted[real], found.numpy().reshape(-1, self.config.vocab_size))
        if found is not logits:
            chosen = torch.from_numpy(places)
            logits[chosen], logits[~chosen] = found, 0
        cache.advance(real)
        return logits

    def _positions(
        self, cache: NativeCache, positions: Tensor | None, count: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Return the position of each new token, [batch, count], and which of them are tokens, not padding."""
        first = np.array(cache.filled, np.int64)[:, None]
        if positions is None:
            return first + np.arange(count), np.ones((len(first), count), bool)
        at = positions.numpy()
        real = at >= 0
        if not np.array_equal(at[real], (first + real.cumsum(1) - 1)[real]):
            raise InputError("the positions do not continue the positions in the cache")
        return at, real

    def _check(self, ids: npt.NDArray[np.int64], end: int) -> None:
        if end > self.config.max_seq_len:
            raise InputError(
                f"{end} tokens, but the model's context holds {self.config.max_seq_len}; shorten the input"
            )
        if not 0 <= ids.min() <= ids.max() < self.config.vocab_size:
            raise InputError(
                f"ids range from {ids.min()} to {ids.max()}; they must be 0 to {self.config.vocab_size - 1}"
            )

    def _read(
        self,
        tokens: npt.NDArray[np.int64],
        cache: NativeCache,
        end: int,
        wanted: npt.NDArray[np.bool_],
        logits: npt.NDArray[np.float32],
    ) -> None:
        """Read tokens in chunks, so that Ctrl-C takes effect between two chunks."""
        rotation = torch.view_as_real(rotary_table(self.config, max(end, 1), self.device)).flatten(1).numpy()
        done = 0
        for start in range(0, len(tokens), _core.MOST_TOKENS):
            some = slice(start, start + _core.MOST_TOKENS)
            asked = wanted[some].nonzero()[0]
            self.core.forward(tokens[some], cache.core, rotation, asked, logits[done : done + len(asked)])
            done += len(asked)

    def new_cache(self, batch: int = 1, capacity: int = 0, dtype: torch.dtype = torch.float16) -> NativeCache:
        """Return an empty cache for this model.

        Args:
            batch: The number of texts.
            capacity: The number of tokens of each text to reserve memory for.
            dtype: float16; bfloat16, with the range of float32; or int8, with half the size.
        """
        return NativeCache(self.config, batch, capacity=capacity, dtype=dtype)

    def put(self, name: str, data: memoryview | Tensor) -> None:
        """Set a tensor, given the stored bytes of its rows or its numbers.

        Raises:
            InputError: When name, size or content is wrong; the message names the tensor.
        """
        bytes_ = data if isinstance(data, memoryview) else data.contiguous().flatten().view(torch.uint8).numpy()
        try:
            self.core.put(name, bytes_)
        except ValueError as error:
            raise InputError(str(error)) from None


_MODELS: weakref.WeakSet[NativeModel] = weakref.WeakSet()


@atexit.register
def _read_no_more() -> None:
    """Wait at exit for models that other threads are using, and keep those threads from starting another call.

    A thread that returns from C++, ours or torch's, after the interpreter has ended aborts the process.
    """
    for model in list(_MODELS):
        model._reading.acquire(timeout=1)


def kernels() -> list[str]:
    """Return the names of the kernels that this processor can run, best first; the last is "plain"."""
    return _core.kernels()


def refusal(checkpoint: Checkpoint) -> str | None:
    """Return why `NativeModel` cannot compute with the weights of a checkpoint as stored; None if it can."""
    unknown = sorted({kind for kind in checkpoint.kinds.values() if kind not in _core.KINDS})
    if unknown:
        return f"there are no kernels for {', '.join(unknown)}"
    if not checkpoint.kinds and checkpoint.dtype not in _KINDS:
        return f"there are no kernels for {str(checkpoint.dtype).removeprefix('torch.')}"
    columns = {name: shape[1] for name, shape in expected_shapes(checkpoint.config).items() if len(shape) > 1}
    for name, kind in checkpoint.kinds.items():
        if columns.get(name, 0) % _core.KINDS[kind]:
            theirs, block = checkpoint.name_of(name), _core.KINDS[kind]
            return f"{theirs} has rows of {columns[name]} numbers, not a multiple of the {kind} block size {block}"
    return None
