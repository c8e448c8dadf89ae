from typing import Any

MOST_TOKENS: int
KINDS: dict[str, int]

def kernels() -> list[str]: ...

class Matrix:
    def __init__(self, kind: str, rows: int, columns: int, data: Any, threads: int = 1) -> None: ...
    def read(self, out: Any) -> None: ...
    def multiply(self, vectors: Any, out: Any, kernel: str = "") -> None: ...

class Cache:
    def __init__(self, kind: str, layers: int, kv_heads: int, head_dim: int, texts: int) -> None: ...
    @property
    def texts(self) -> int: ...
    @property
    def capacity(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    def reserve(self, capacity: int, filled: list[int]) -> None: ...
    def select(self, texts: list[int], filled: list[int]) -> None: ...

class Decoder:
    def __init__(
        self,
        *,
        dim: int,
        layers: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        hidden: int,
        vocabulary: int,
        epsilon: float,
        tied: bool,
        query_bias: bool,
        output_bias: bool,
        kinds: dict[str, str],
        threads: int = 1,
        kernel: str = "",
    ) -> None: ...
    @property
    def bytes(self) -> int: ...
    @property
    def threads(self) -> int: ...
    def put(self, name: str, data: Any) -> None: ...
    def forward(self, tokens: Any, cache: Cache, rotation: Any, wanted: Any, logits: Any) -> None: ...
    def sum(self) -> int: ...

class LayerShape:
    def __init__(
        self, batch: int, time: int, dim: int, heads: int, kv_heads: int, head_dim: int, hidden: int, epsilon: float
    ) -> None: ...

class Trainer:
    def __init__(self, threads: int = 1, kernel: str = "") -> None: ...
    @property
    def threads(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    def forward(
        self, shape: LayerShape, weights: list[Any], rotation: Any, begins: Any, x: Any, states: list[Any], results: Any
    ) -> None: ...
    def backward(
        self,
        shape: LayerShape,
        weights: list[Any],
        rotation: Any,
        begins: Any,
        x: Any,
        states: list[Any],
        slope: Any,
        x_slope: Any,
        slopes: list[Any],
    ) -> None: ...
    def loss(self, hidden: Any, head: Any, targets: Any, logits: int, hidden_slope: Any, head_slope: Any) -> float: ...
    def multiply(
        self, left: Any, right: Any, results: Any, left_transposed: bool = False, right_transposed: bool = False
    ) -> None: ...
