"""A model that computes what `Transformer` computes, faster, with our own CPU kernels for quantized weights.

Generation uses it like a `Transformer`. It takes the weights of any checkpoint as they are stored. Quantized weights
are multiplied in at least 16 bits with activations of 16 bits and summed in 32 bits, so that the precision of a result
is that of the weights, not of the kernels. With float32, bfloat16 and float16 weights, everything is computed and
cached with the precision of float32. With quantized weights, the caches of texts that are generated have 8 bits.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, Union, overload

import numpy as np
import numpy.typing as npt

from bpe.errors import InputError
from model import _core
from model.checkpoint.block_formats import float32_of
from model.checkpoint.checking import checked_weights
from model.checkpoint.opened import Checkpoint
from model.checkpoint.weights import KINDS, StoredTensor, expected_shapes
from model.config import ModelConfig
from model.dtypes import DType
from model.rotary import depends_on_length, rotation_tables, table_length, used_ropes
from model.threads import default_threads

if TYPE_CHECKING:
    from torch import Tensor

Ids: TypeAlias = Union[npt.NDArray[np.int64], Sequence[Sequence[int]]]
CACHES = ("float32", "float16", "bfloat16", "int8")
"""The names of the dtypes in which keys and values can be stored."""
_AT_ONCE = 1 << 24  # bytes of weights that are packed before the memory that the file took is released


class NativeCache:
    """The keys and values of several texts in the layout of the kernels, with the interface of `KVCache`.

    Padding takes no memory: each text stores only its own tokens, in the order of their positions.
    """

    def __init__(self, config: ModelConfig, batch: int = 1, *, capacity: int = 0, dtype: DType = "float16") -> None:
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
        kind = str(dtype).removeprefix("torch.")
        if kind not in CACHES:
            raise InputError(f"the dtype of a cache is {dtype}; it must be one of {', '.join(CACHES)}")
        if kind == "int8" and config.head_dim > _core.WIDEST_BYTE_HEAD:
            raise InputError(
                f"heads have {config.head_dim} dimensions, but a cache of int8 holds at most {_core.WIDEST_BYTE_HEAD}; "
                "choose float16"
            )
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

    def select(self, rows: Sequence[int] | npt.NDArray[np.int64] | Tensor) -> None:
        """Keep these texts, in this order: [new batch]. A text that is named several times is copied."""
        places = np.asarray(rows)
        self.core.select(places.tolist(), self.filled)
        self._real = self._real[places]
        self.filled = self._real.sum(1).tolist()


class NativeModel:
    """A model with native kernels: `logits = NativeModel.of(checkpoint)(ids)`, with the interface of `Transformer`.

    Given ids in a tensor of torch, it returns such a tensor; given an array or a list, an array. Its threads sleep
    between calls.
    """

    device = "cpu"

    def __init__(
        self, config: ModelConfig, kinds: dict[str, str], kernel: str = "", threads: int | None = None
    ) -> None:
        """Create a model without weights; `put` sets them.

        Args:
            config: The configuration.
            kinds: The stored type of every tensor, by Meta's name.
            kernel: "amx", "avx512", "avxvnni", "avx2", "neon" or "plain". Defaults to `chosen_kernel()`.
            threads: The number of threads. Defaults to `model.threads.default_threads`.

        Raises:
            InputError: When the core does not support the configuration or the kernel.
        """
        reason = _without_kernels(config)
        if reason is not None:
            raise InputError(reason)
        self.config = config
        self.kernel: str = kernel or chosen_kernel()
        """The name of its kernels."""
        self._kinds = kinds
        quantized = any(_core.KINDS.get(kind, 1) > 1 for kind in kinds.values())
        self._exact_cache = "float16" if quantized else "float32"
        small = quantized and config.head_dim <= _core.WIDEST_BYTE_HEAD
        self.cache_dtype: DType = "int8" if small else self._exact_cache
        """The dtype of keys and values in new caches, one of `CACHES`. Set it to choose another one.

        Defaults to int8 for quantized weights, whose rounding costs more, and to float32 for others.
        """
        self.reading = threading.Lock()
        """Held while the model reads."""
        _MODELS.add(self)
        try:
            threads = default_threads() if threads is None else threads
            self.core = _core.Decoder(_shape(config), kinds, threads, kernel)
        except ValueError as error:
            raise InputError(str(error)) from None

    def __repr__(self) -> str:
        kinds = ", ".join(dict.fromkeys(self._kinds.values()))
        return f"<NativeModel: {self.config.n_parameters:,} parameters in {kinds}, kernels for {self.kernel}>"

    @classmethod
    def of(cls, checkpoint: Checkpoint, kernel: str = "", threads: int | None = None) -> NativeModel:
        """Return the model of a checkpoint, with its weights as they are stored.

        Args:
            checkpoint: The checkpoint to read.
            kernel: The name of the kernels, as for the constructor.
            threads: The number of threads, as for the constructor.

        Raises:
            InputError: When there are no kernels for the stored types, or a tensor is missing, unknown, misshapen or
                has numbers or scales that are not finite. The message names the tensor.
        """
        reason = refusal(checkpoint)
        if reason is not None:
            raise InputError(f"{checkpoint.source}: {reason}")
        expected = expected_shapes(checkpoint.config)
        if checkpoint.computed is not None:
            from model.checkpoint.assemble import computed_weights

            kinds, weights = dict.fromkeys(expected, KINDS[checkpoint.dtype]), computed_weights(checkpoint)
        else:
            _check_names(checkpoint, expected)
            kinds, weights = {name: checkpoint.kinds[name] for name in expected}, checked_weights(checkpoint)
        model = cls(checkpoint.config, kinds, kernel, threads)
        model._put_all(checkpoint, weights)
        return model

    def _put_all(self, checkpoint: Checkpoint, weights: Iterable[StoredTensor]) -> None:
        """Set all tensors, many at a time: between two calls, this thread may have to wait for others to let it run."""
        some: list[StoredTensor] = []
        size = 0
        for tensor in weights:
            some.append(tensor)
            size += len(tensor.data)
            if size >= _AT_ONCE:
                self._put_some(checkpoint, some)
                some, size = [], 0
        self._put_some(checkpoint, some)

    def _put_some(self, checkpoint: Checkpoint, tensors: Sequence[StoredTensor]) -> None:
        """Set tensors; an error names the file and the tensor by its name there."""
        given = [
            (name, data if len(shape) > 1 else float32_of(data, kind).view(np.uint8))
            for name, shape, kind, data, _ in tensors
        ]
        try:
            self.core.put_all(given)
        except ValueError as error:
            message = str(error)
            name = message.partition(" ")[0]  # which it begins with
            raise InputError(f"{checkpoint.source}: {message.replace(name, checkpoint.name_of(name))}") from None
        for tensor in tensors:
            tensor.release(0, len(tensor.data))

    @overload
    def __call__(
        self, ids: Tensor, cache: NativeCache | None = None, *, positions: Tensor | None = None, last_only: bool = False
    ) -> Tensor: ...
    @overload
    def __call__(
        self, ids: Ids, cache: NativeCache | None = None, *, positions: Ids | None = None, last_only: bool = False
    ) -> npt.NDArray[np.float32]: ...

    def __call__(
        self,
        ids: Tensor | Ids,
        cache: NativeCache | None = None,
        *,
        positions: Tensor | Ids | None = None,
        last_only: bool = False,
    ) -> Tensor | npt.NDArray[np.float32]:
        """Return the logits of the token that follows each id, as `Transformer.forward` does.

        Args:
            ids: Integers [batch, time]. With a cache, they continue its tokens and are added to it.
            cache: The cache; None reads the ids alone, with keys and values of at least 16 bits.
            positions: Integers [batch, time], -1 for padding; the others continue the positions in the cache.
            last_only: Return the logits of the last id only.

        Returns:
            float32 [batch, time, vocabulary], or [batch, 1, vocabulary] with `last_only`. Logits of padding are zeros.
            A tensor if `ids` is a tensor, otherwise an array.

        Raises:
            InputError: When a shape is wrong, an id is unknown, the tokens exceed the context, or the positions do not
                continue those in the cache.
        """
        given = _array(ids)
        at = None if positions is None else _array(positions)
        if given.ndim != 2 or given.shape[1] == 0:
            raise InputError(f"ids have the shape {list(given.shape)}; expected [batch, time] with at least one id")
        batch = len(given)
        if cache is not None and cache.batch != batch:
            raise InputError(f"the cache holds {cache.batch} texts, but ids has {batch}")
        if at is not None and at.shape != given.shape:
            raise InputError(f"positions have the shape {list(at.shape)}, but ids have {list(given.shape)}")
        with self.reading:
            own = self.new_cache(batch, dtype=self._exact_cache) if cache is None else cache
            logits = self._forward(given, own, at, last_only)
        if not _is_tensor(ids):
            return logits
        import torch

        return torch.from_numpy(logits)

    def _forward(
        self, ids: npt.NDArray[np.int64], cache: NativeCache, positions: npt.NDArray[np.int64] | None, last_only: bool
    ) -> npt.NDArray[np.float32]:
        batch, count = ids.shape
        # 1. Compute positions.
        at, real = self._positions(cache, positions, count)
        end = int(at.max()) + 1
        self._check(ids, end)
        cache.reserve(count)
        # 2. List all tokens text by text, without padding.
        texts = np.broadcast_to(np.arange(batch, dtype=np.int64)[:, None], real.shape)
        tokens = np.stack((ids, texts, at), axis=-1)[real]  # [tokens, 3]
        wanted = real.copy()
        if last_only:
            wanted[:, :-1] = False
        # 3. Read them. Logits of padding are zeros.
        logits = np.empty((batch, 1 if last_only else count, self.config.vocab_size), np.float32)
        places = wanted[:, -1:] if last_only else wanted
        found = logits if places.all() else np.empty((int(places.sum()), self.config.vocab_size), np.float32)
        self._read(tokens, cache, end, wanted[real], found.reshape(-1, self.config.vocab_size))
        if found is not logits:
            logits[places], logits[~places] = found, 0
        cache.advance(real)
        return logits

    def _positions(
        self, cache: NativeCache, positions: npt.NDArray[np.int64] | None, count: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Return the position of each new token, [batch, count], and which of them are tokens, not padding."""
        first = np.array(cache.filled, np.int64)[:, None]
        if positions is None:
            return first + np.arange(count), np.ones((len(first), count), bool)
        real = positions >= 0
        if not np.array_equal(positions[real], (first + real.cumsum(1) - 1)[real]):
            raise InputError("the positions do not continue the positions in the cache")
        return positions, real

    def _check(self, ids: npt.NDArray[np.int64], end: int) -> None:
        if end > self.config.max_seq_len:
            raise InputError(
                f"{end:,} tokens, but the model's context holds {self.config.max_seq_len:,}; shorten the input"
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
        rotation = rotation_tables(self.config, table_length(self.config, max(end, 1)))
        done = 0
        for start in range(0, len(tokens), _core.MOST_TOKENS):
            some = slice(start, start + _core.MOST_TOKENS)
            asked = wanted[some].nonzero()[0]
            self.core.forward(tokens[some], cache.core, rotation, asked, logits[done : done + len(asked)])
            done += len(asked)

    def new_cache(self, batch: int = 1, capacity: int = 0, dtype: DType | None = None) -> NativeCache:
        """Return an empty cache for this model.

        Args:
            batch: The number of texts.
            capacity: The number of tokens of each text to reserve memory for.
            dtype: float32; float16, with half the size; bfloat16, likewise, with the range of float32; or int8, with a
                quarter and a scale for each key and value. Defaults to `cache_dtype`.
        """
        return NativeCache(self.config, batch, capacity=capacity, dtype=self.cache_dtype if dtype is None else dtype)

    def put(self, name: str, data: memoryview | Tensor) -> None:
        """Set a tensor, given the stored bytes of its rows or its numbers.

        Raises:
            InputError: When name, size or content is wrong; the message names the tensor.
        """
        bytes_: Any = data
        if not isinstance(data, memoryview):
            from model.checkpoint.assemble import bytes_of

            bytes_ = bytes_of(data)
        try:
            self.core.put(name, bytes_)
        except ValueError as error:
            raise InputError(str(error)) from None


def _shape(config: ModelConfig) -> _core.DecoderShape:
    shape = _core.DecoderShape()
    shape.dim, shape.layers, shape.vocabulary = config.dim, config.n_layers, config.vocab_size
    shape.heads, shape.kv_heads, shape.head_dim = config.n_heads, config.n_kv_heads, config.head_dim
    shape.hidden, shape.activation, shape.tied = config.hidden_dim, config.activation, config.tied_embeddings
    shape.query_bias, shape.output_bias = config.qkv_bias, config.wo_bias
    shape.feed_forward_bias = config.ffn_bias
    shape.epsilon, shape.norm_offset = config.norm_eps, float(config.norm_offset)
    shape.pre_norm, shape.post_norm, shape.head_norm = config.pre_norm, config.post_norm, config.qk_norm
    shape.attention_factor, shape.attention_softcap = config.attention_scale, config.attention_softcap
    shape.embedding_factor, shape.residual_factor = config.embedding_multiplier, config.residual_multiplier
    shape.logits_divisor, shape.logits_softcap = config.logits_scaling, config.logits_softcap
    shape.expert_hidden, shape.experts_per_token = config.expert_size, config.n_experts_per_token
    shape.normalize_experts = config.normalize_experts
    layers = range(config.n_layers)
    shape.windows = [config.layer_kind(layer).window for layer in layers]
    ropes = used_ropes(config)
    shape.tables = [ropes.index(config.layer_kind(layer).rope) for layer in layers]
    shape.experts = [config.n_experts if config.has_experts(layer) else 0 for layer in layers]
    return shape


_MODELS: weakref.WeakSet[NativeModel] = weakref.WeakSet()


@atexit.register
def _read_no_more() -> None:
    """Wait at exit for models that other threads are using, and keep those threads from starting another call.

    A thread that returns from C++, ours or torch's, after the interpreter has ended aborts the process.
    """
    for model in list(_MODELS):
        model.reading.acquire(timeout=1)


def kernels() -> list[str]:
    """Return the names of the kernels that this processor can run, best first; the last is "plain"."""
    return _core.kernels()


def chosen_kernel() -> str:
    """Return the kernel that runs: the one that the environment variable MODEL_KERNEL names, or the best.

    Raises:
        InputError: When this processor cannot run it.
    """
    return _core.chosen_kernel()


def _without_kernels(config: ModelConfig) -> str | None:
    """Return which part of a model has no kernels; None if all parts have."""
    if config.vision is not None:
        return "there are no kernels for images (vision, cross_attention_layers)"
    if depends_on_length(config) and config.max_seq_len > config.rope_original_length:
        return (
            f"there are no kernels for rope_scaling {config.rope_scaling!r} beyond the original context, "
            f"rope_original_length {config.rope_original_length:,}"
        )
    return None


def refusal(checkpoint: Checkpoint) -> str | None:
    """Return why `NativeModel` cannot compute with the weights of a checkpoint as stored; None if it can."""
    without_kernels = _without_kernels(checkpoint.config)
    if without_kernels is not None:
        return without_kernels
    shapes = expected_shapes(checkpoint.config)
    # Tensors of one dimension are converted to float32.
    kinds = {name: kind for name, kind in checkpoint.kinds.items() if len(shapes.get(name, ())) != 1}
    if checkpoint.computed is not None:
        kinds = {"": KINDS[checkpoint.dtype]}
    unknown = sorted({kind for kind in kinds.values() if kind not in _core.KINDS})
    if unknown:
        return f"there are no kernels for {', '.join(unknown)}"
    for name, kind in kinds.items():
        columns, block = shapes.get(name, (0, 0))[-1], _core.KINDS[kind]
        if columns % block:
            theirs = checkpoint.name_of(name)
            return f"{theirs} has rows of {columns} numbers, not a multiple of the {kind} block size {block}"
    return None


def _check_names(checkpoint: Checkpoint, expected: Iterable[str]) -> None:
    """Raise InputError if the kinds of a checkpoint lack a tensor, before any is read."""
    for name in expected:
        if name not in checkpoint.kinds:
            raise InputError(
                f"{checkpoint.source}: missing {checkpoint.name_of(name)}; the file is incomplete, or belongs to"
                " another model"
            )


def _is_tensor(numbers: object) -> bool:
    """Return whether an object is a tensor, without importing torch."""
    return type(numbers).__module__.partition(".")[0] == "torch"


def _array(numbers: Tensor | Ids) -> npt.NDArray[np.int64]:
    return np.asarray(numbers, np.int64)
