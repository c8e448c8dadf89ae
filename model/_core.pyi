"""The C++ core of the model: kernels for generation and training on a CPU.

Arrays are C-contiguous buffers on the CPU: NumPy arrays, or anything that supports DLPack, such as torch tensors.
Functions write their results to arrays that the caller passes, and raise ValueError for arguments that do not fit.
"""

from collections.abc import Sequence
from typing import Any

MOST_TOKENS: int
"""The largest number of tokens that `Decoder.forward` takes."""

WIDEST_BYTE_HEAD: int
"""The largest size of a head whose keys and values a `Cache` of int8 can store."""

KINDS: dict[str, int]
"""The supported types of weights, by ggml's names, with the number of columns in a block (1 for unquantized types)."""

def kernels() -> list[str]:
    """Return the names of the kernels that this processor can run, best first. The last is always "plain"."""

def chosen_kernel() -> str:
    """Return the kernel that runs: the one that the environment variable MODEL_KERNEL names, or the best.

    Raises:
        InputError: When this processor cannot run it.
    """

class Matrix:
    """A single packed matrix, for the tests."""

    def __init__(self, kind: str, rows: int, columns: int, data: Any, threads: int = 1) -> None:
        """Pack a matrix.

        Args:
            kind: The type of the weights, a key of `KINDS`.
            rows: The number of rows.
            columns: The number of columns; a multiple of the block size.
            data: The rows as stored in a file, uint8 `[bytes]`.
            threads: The number of threads among which the rows are divided.
        """
    def read(self, out: Any) -> None:
        """Dequantize the matrix to `out`, float32 `[rows, columns]`."""
    def multiply(self, vectors: Any, out: Any, kernel: str = "") -> None:
        """Multiply the matrix with vectors.

        Args:
            vectors: float32 `[count, columns]`; count is a power of two.
            out: Results, float32 `[count, rows]`.
            kernel: A name from `kernels()`; default: `chosen_kernel()`.
        """

class Cache:
    """The keys and values of a batch of sequences."""

    def __init__(self, kind: str, layers: int, kv_heads: int, head_dim: int, sequences: int) -> None:
        """Create a cache with room for no positions.

        Args:
            kind: The stored type: "float32", "float16", "bfloat16" or "int8".
            layers: The number of layers.
            kv_heads: The number of key-value heads.
            head_dim: The size of a head.
            sequences: The batch size.
        """
    @property
    def sequences(self) -> int:
        """The batch size."""
    @property
    def capacity(self) -> int:
        """The number of positions for which every sequence has room."""
    @property
    def bytes(self) -> int:
        """The memory in use, in bytes."""
    def reserve(self, capacity: int, filled: list[int]) -> None:
        """Make room for `capacity` positions, keeping the first `filled[i]` of sequence i.

        Raises:
            MemoryError: When memory runs out. The cache keeps its contents.
        """
    def bytes_for(self, capacity: int) -> int: ...
    def room(self, sequence: int) -> int: ...
    def resize(self, sequence: int, capacity: int, filled: int) -> None: ...
    def copy(self, from_: int, to: int, filled: int) -> None: ...
    def select(self, sequences: list[int], filled: list[int]) -> None:
        """Keep these sequences, in this order. A sequence that is named several times is copied.

        Raises:
            MemoryError: When memory runs out. The cache is unchanged.
        """

class DecoderShape:
    """The sizes and parts of a model. A new object has the parts of a Llama, and no sizes."""

    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    epsilon: float
    tied: bool
    """Whether the output matrix is the embedding matrix."""
    query_bias: bool
    """Whether the projections to queries, keys and values have biases."""
    output_bias: bool
    """Whether the projection after attention has a bias."""
    feed_forward_bias: bool
    pre_norm: bool
    post_norm: bool
    norm_offset: float
    """Added to the weights of norms when they are set."""
    head_norm: str
    """How queries and keys are normalised: "none", "head" or "all"."""
    activation: str
    """The function of the gate: "silu", "gelu" or "gelu_tanh"."""
    attention_factor: float
    """The factor of the scores of attention."""
    attention_softcap: float
    logits_softcap: float
    embedding_factor: float
    residual_factor: float
    logits_divisor: float
    expert_hidden: int
    experts_per_token: int
    normalize_experts: bool
    windows: list[int]
    """For each layer, the number of tokens that a token attends to, itself included; 0 for all."""
    tables: list[int]
    """For each layer, the number of its table of rotations."""
    experts: list[int]
    """For each layer, the number of its experts; 0 for a single network."""

class Decoder:
    """A Llama, or a relative, whose weights stay in the types in which a checkpoint stores them."""

    def __init__(self, shape: DecoderShape, kinds: dict[str, str], threads: int = 1, kernel: str = "") -> None:
        """Allocate the memory of a model. `put` sets its weights.

        Args:
            shape: The sizes and parts of the model.
            kinds: The type of each matrix, by its name in Meta's checkpoints.
            threads: The number of threads.
            kernel: A name from `kernels()`; default: `chosen_kernel()`.
        """
    @property
    def bytes(self) -> int:
        """The memory of the weights, in bytes."""
    @property
    def threads(self) -> int:
        """The number of threads."""
    def put(self, name: str, data: Any) -> None:
        """Set a tensor.

        Args:
            name: The tensor's name in Meta's checkpoints.
            data: uint8 `[bytes]`: a matrix as stored in a file, in its type; a vector in float32, a norm without its
                offset.
        """
    def put_all(self, tensors: Sequence[tuple[str, Any]]) -> None:
        """Set several tensors, given as pairs of the arguments of `put`. Other Python threads run meanwhile."""
    def forward(self, tokens: Any, cache: Cache, rotation: Any, wanted: Any, logits: Any, layers: int = 0) -> None:
        """Run the model on up to `MOST_TOKENS` tokens, and add them to the cache.

        Args:
            tokens: int64 `[tokens, 3]`: id, sequence and position of each token. The tokens of a sequence continue the
                positions that its cache holds.
            cache: The cache, with room for the tokens.
            rotation: float32 `[tables, positions, head_dim]`: cosine and sine of the angle of each pair at each
                position.
            wanted: int64 `[wanted]`: indices of the tokens whose logits are computed.
            logits: Results, float32 `[wanted, vocabulary]`.
            layers: The number of first layers that the tokens pass; 0 for all. The cache then lacks the tokens in the
                other layers, and the logits are guesses.
        """
    def sum_weights(self) -> int:
        """Read all weights and return the sum of their 64-bit words, to measure how fast memory is."""

class LayerShape:
    """The sizes of a layer and of its input."""

    def __init__(
        self, batch: int, time: int, dim: int, heads: int, kv_heads: int, head_dim: int, hidden: int, epsilon: float
    ) -> None: ...

def trains_in_bfloat16(kernel: str = "") -> bool:
    """Return whether a kernel, or the chosen one, has matrix products in bfloat16 for `LayerTrainer`."""

class LayerTrainer:
    """The threads and buffers with which layers are trained in float32.

    With `bfloat16`, the numbers of matrix products are rounded to bfloat16; sums and everything else stay in float32.

    In the shapes below, tokens = batch * time, queries = heads * head_dim and keys = kv_heads * head_dim. Only the size
    of an array is checked, not its shape.
    """

    def __init__(self, threads: int = 1, kernel: str = "", bfloat16: bool = False) -> None: ...
    @property
    def threads(self) -> int:
        """The number of threads."""
    @property
    def bytes(self) -> int:
        """The memory of buffers that are kept between calls, in bytes."""
    def forward(
        self,
        shape: LayerShape,
        weights: Sequence[Any],
        rotation: Any,
        begins: Any,
        x: Any,
        states: Sequence[Any],
        results: Any,
    ) -> None:
        """Compute a layer.

        Args:
            shape: The sizes.
            weights: The norm and matrices in Meta's order: attention_norm, wq, wk, wv, wo, ffn_norm, w1, w2, w3.
            rotation: Cosine and sine of the angle of each pair, `[time, head_dim]` or `[tokens, head_dim]`.
            begins: int64 `[tokens]`: the first position in its row that each token attends to. None: position 0.
            x: The input, `[tokens, dim]`.
            states: Results that `backward` needs: 1 / root mean square of x `[tokens]`; rotated queries
                `[tokens, queries]` and keys `[tokens, keys]`; values `[tokens, keys]`; the result of attention
                `[tokens, queries]`; the input of the feed-forward network `[tokens, dim]` and 1 / its root mean square
                `[tokens]`; its products with w1 and w3 `[tokens, hidden]`.
            results: Results, `[tokens, dim]`.
        """
    def backward(
        self,
        shape: LayerShape,
        weights: Sequence[Any],
        rotation: Any,
        begins: Any,
        x: Any,
        states: Sequence[Any],
        gradient: Any,
        x_gradient: Any,
        weight_gradients: Sequence[Any],
    ) -> None:
        """Compute the gradients of a layer. The arguments of `forward` are passed again.

        Args:
            shape: The sizes.
            weights: As in `forward`.
            rotation: As in `forward`.
            begins: As in `forward`.
            x: As in `forward`.
            states: As `forward` wrote them.
            gradient: The gradient of the results, `[tokens, dim]`.
            x_gradient: Results: the gradient of x, `[tokens, dim]`.
            weight_gradients: Results: the gradients of the weights, in their order and shapes.
        """
    def loss(
        self, hidden: Any, head: Any, targets: Any, logits: int, hidden_gradient: Any, head_gradient: Any
    ) -> float:
        """Compute the cross-entropy loss of the output head, and its gradients.

        Args:
            hidden: Hidden states, `[tokens, dim]`.
            head: The output matrix, `[vocabulary, dim]`.
            targets: int64 `[tokens]`; negative targets do not count.
            logits: The largest number of logits in memory at a time; at least those of one token are.
            hidden_gradient: Results, `[tokens, dim]`.
            head_gradient: Results, `[vocabulary, dim]`, or None to skip them.

        Returns:
            The sum of -log p(target) over the targets.
        """
    def multiply(
        self, left: Any, right: Any, results: Any, left_transposed: bool = False, right_transposed: bool = False
    ) -> None:
        """Compute results `[rows, columns]` = left `[rows, inner]` times right `[inner, columns]`.

        Args:
            left: A matrix, stored transposed if `left_transposed` is set.
            right: A matrix, stored transposed if `right_transposed` is set.
            results: Results, `[rows, columns]`.
            left_transposed: Whether `left` has the shape `[inner, rows]`.
            right_transposed: Whether `right` has the shape `[columns, inner]`.
        """
