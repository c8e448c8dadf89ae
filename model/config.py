"""The configuration of a Llama: its sizes, its presets, and what they cost in parameters, memory and arithmetic.

Nothing here allocates a weight or imports torch, so the cost of a 405B model can be computed on a laptop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import TYPE_CHECKING, Any, TypedDict

from bpe.arguments import checked
from bpe.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from typing_extensions import Unpack

_LLAMA_1_7B: dict[str, Any] = {
    "dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "hidden_dim": 11008,
    "vocab_size": 32000, "rope_theta": 10000.0, "max_seq_len": 2048, "norm_eps": 1e-6,
}  # fmt: skip
_LLAMA_1_13B: dict[str, Any] = {
    **_LLAMA_1_7B, "dim": 5120, "n_layers": 40, "n_heads": 40, "n_kv_heads": 40, "hidden_dim": 13824,
}  # fmt: skip
_LLAMA_2: dict[str, Any] = {"max_seq_len": 4096, "norm_eps": 1e-5}
_LLAMA_3_8B: dict[str, Any] = {
    "dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "hidden_dim": 14336,
    "vocab_size": 128256, "rope_theta": 500000.0, "max_seq_len": 8192,
}  # fmt: skip
_LLAMA_3_70B: dict[str, Any] = {**_LLAMA_3_8B, "dim": 8192, "n_layers": 80, "n_heads": 64, "hidden_dim": 28672}
_LLAMA_3_1: dict[str, Any] = {"use_scaled_rope": True, "max_seq_len": 131072}
_LLAMA_3_2: dict[str, Any] = {**_LLAMA_3_1, "rope_scaling_factor": 32.0, "tied_embeddings": True}
_SMOLLM2: dict[str, Any] = {
    "vocab_size": 49152, "rope_theta": 100000.0, "max_seq_len": 8192, "tied_embeddings": True,
}  # fmt: skip

# Published sizes (params.json or config.json of each release), and sizes to train at home. The vocab_size of the latter
# is a default that the tokenizer of a run replaces. They tie the embeddings: at these sizes a second vocabulary matrix
# costs more than the layers it would replace.
PRESETS: dict[str, dict[str, Any]] = {
    "llama1-7b": _LLAMA_1_7B,
    "llama1-13b": _LLAMA_1_13B,
    "llama1-30b": {
        **_LLAMA_1_7B, "dim": 6656, "n_layers": 60, "n_heads": 52, "n_kv_heads": 52, "hidden_dim": 17920,
    },
    "llama1-65b": {
        **_LLAMA_1_7B, "dim": 8192, "n_layers": 80, "n_heads": 64, "n_kv_heads": 64, "hidden_dim": 22016,
        "norm_eps": 1e-5,
    },
    "llama2-7b": {**_LLAMA_1_7B, **_LLAMA_2},
    "llama2-13b": {**_LLAMA_1_13B, **_LLAMA_2},
    "llama2-70b": {
        **_LLAMA_1_7B, **_LLAMA_2, "dim": 8192, "n_layers": 80, "n_heads": 64, "n_kv_heads": 8, "hidden_dim": 28672,
    },
    "llama3-8b": _LLAMA_3_8B,
    "llama3-70b": _LLAMA_3_70B,
    "llama3.1-8b": {**_LLAMA_3_8B, **_LLAMA_3_1},
    "llama3.1-70b": {**_LLAMA_3_70B, **_LLAMA_3_1},
    "llama3.1-405b": {
        **_LLAMA_3_8B, **_LLAMA_3_1, "dim": 16384, "n_layers": 126, "n_heads": 128, "hidden_dim": 53248,
    },
    "llama3.2-1b": {**_LLAMA_3_8B, **_LLAMA_3_2, "dim": 2048, "n_layers": 16, "hidden_dim": 8192},
    "llama3.2-3b": {**_LLAMA_3_8B, **_LLAMA_3_2, "dim": 3072, "n_layers": 28, "n_heads": 24, "hidden_dim": 8192},
    "llama3.3-70b": {**_LLAMA_3_70B, **_LLAMA_3_1},
    "smollm2-135m": {**_SMOLLM2, "dim": 576, "n_layers": 30, "n_heads": 9, "n_kv_heads": 3, "hidden_dim": 1536},
    "smollm2-360m": {**_SMOLLM2, "dim": 960, "n_layers": 32, "n_heads": 15, "n_kv_heads": 5, "hidden_dim": 2560},
    "smollm2-1.7b": {
        **_SMOLLM2, "dim": 2048, "n_layers": 24, "n_heads": 32, "n_kv_heads": 32, "hidden_dim": 8192,
        "rope_theta": 130000.0,
    },
    "nano": {
        "dim": 128, "n_layers": 3, "n_heads": 2, "n_kv_heads": 1, "hidden_dim": 352,
        "vocab_size": 4096, "rope_theta": 10000.0, "max_seq_len": 256, "tied_embeddings": True,
    },
    "micro": {
        "dim": 192, "n_layers": 4, "n_heads": 3, "n_kv_heads": 1, "hidden_dim": 512,
        "vocab_size": 4096, "rope_theta": 10000.0, "max_seq_len": 256, "tied_embeddings": True,
    },
    "mini": {
        "dim": 384, "n_layers": 8, "n_heads": 6, "n_kv_heads": 2, "hidden_dim": 1024,
        "vocab_size": 8192, "rope_theta": 10000.0, "max_seq_len": 512, "tied_embeddings": True,
    },
    "small": {
        "dim": 768, "n_layers": 14, "n_heads": 12, "n_kv_heads": 4, "hidden_dim": 2048,
        "vocab_size": 32768, "rope_theta": 10000.0, "max_seq_len": 1024, "tied_embeddings": True,
    },
}  # fmt: skip

# The keys of Meta's params.json that determine the feed-forward size, and those that have no effect. All other keys are
# fields of ModelConfig.
_DERIVING_KEYS = ("multiple_of", "ffn_dim_multiplier")
_HARMLESS_KEYS = ("max_batch_size",)
_MAX_LAYERS = 1024  # eight times the deepest Llama; rejects damaged files that say a billion


class ModelConfigOptions(TypedDict, total=False):
    """The fields of `ModelConfig`, which `ModelConfig.preset` takes as keyword arguments."""

    dim: int
    n_layers: int
    n_heads: int
    vocab_size: int
    n_kv_heads: int
    head_dim: int
    hidden_dim: int
    norm_eps: float
    rope_theta: float
    use_scaled_rope: bool
    rope_scaling_factor: float
    rope_low_freq_factor: float
    rope_high_freq_factor: float
    rope_original_length: int
    max_seq_len: int
    tied_embeddings: bool
    qkv_bias: bool
    wo_bias: bool


@checked
@dataclass(frozen=True, repr=False)
class ModelConfig:
    """The sizes and settings that define a Llama, under Meta's names.

    Args:
        dim: The size of the residual stream.
        n_layers: The number of layers.
        n_heads: The number of query heads.
        vocab_size: The number of token ids.
        n_kv_heads: The number of key-value heads; 0 means n_heads.
        head_dim: The size of a head; 0 means dim // n_heads.
        hidden_dim: The size of the feed-forward network; 0 means two thirds of 4 * dim, rounded up to a multiple of 256
            (the rule of Llama 1).
        norm_eps: The epsilon of RMSNorm.
        rope_theta: The base of the rotary frequencies.
        use_scaled_rope: Whether low frequencies are scaled down as in Llama 3.1; the four settings below apply only
            then. See `model.rotary.rope_frequencies`.
        rope_scaling_factor: The divisor of the lowest frequencies.
        rope_low_freq_factor: Wavelengths above rope_original_length / rope_low_freq_factor are scaled fully.
        rope_high_freq_factor: Wavelengths below rope_original_length / rope_high_freq_factor are not scaled.
        rope_original_length: The context length before scaling, in tokens.
        max_seq_len: The context length, in tokens.
        tied_embeddings: Whether the output matrix is the embedding matrix.
        qkv_bias: Whether wq, wk and wv have a bias.
        wo_bias: Whether wo has a bias.

    Fields left at 0 hold the derived number after construction.

    Raises:
        InputError: When a value has the wrong type or range, or values do not fit each other; the message names the
            field.

    >>> config = ModelConfig.preset("llama3-8b")
    >>> config.n_parameters
    8030261248
    >>> config.kv_cache_bytes(batch=1, length=8192, bytes_per_number=2) // 2**20
    1024
    """

    dim: int
    n_layers: int
    n_heads: int
    vocab_size: int
    n_kv_heads: int = 0
    head_dim: int = 0
    hidden_dim: int = 0
    norm_eps: float = 1e-5
    rope_theta: float = 500000.0
    use_scaled_rope: bool = False
    rope_scaling_factor: float = 8.0
    rope_low_freq_factor: float = 1.0
    rope_high_freq_factor: float = 4.0
    rope_original_length: int = 8192
    max_seq_len: int = 8192
    tied_embeddings: bool = False
    qkv_bias: bool = False
    wo_bias: bool = False

    def __post_init__(self) -> None:
        self._convert_numbers()
        for name in ("dim", "n_layers", "n_heads", "vocab_size", "max_seq_len", "rope_original_length"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.n_layers > _MAX_LAYERS:
            raise InputError(f"n_layers is {self.n_layers}; it must be at most {_MAX_LAYERS}")
        for name in ("n_kv_heads", "head_dim", "hidden_dim"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be positive, or 0 for the default")
        for name in ("norm_eps", "rope_theta", "rope_scaling_factor", "rope_low_freq_factor", "rope_high_freq_factor"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"{name} is {getattr(self, name)}; it must be a positive number")
        if self.rope_high_freq_factor <= self.rope_low_freq_factor:
            raise InputError(
                f"rope_high_freq_factor ({self.rope_high_freq_factor}) must exceed "
                f"rope_low_freq_factor ({self.rope_low_freq_factor})"
            )
        if self.head_dim == 0 and self.dim % self.n_heads:
            raise InputError(
                f"dim ({self.dim}) is not divisible by n_heads ({self.n_heads}); change one of them, or set head_dim"
            )
        object.__setattr__(self, "n_kv_heads", self.n_kv_heads or self.n_heads)
        object.__setattr__(self, "head_dim", self.head_dim or self.dim // self.n_heads)
        object.__setattr__(self, "hidden_dim", self.hidden_dim or feed_forward_size(self.dim))
        if self.n_heads % self.n_kv_heads:
            raise InputError(
                f"n_heads ({self.n_heads}) is not divisible by n_kv_heads ({self.n_kv_heads}); change one of them"
            )
        if self.head_dim % 2:
            raise InputError(f"head_dim is {self.head_dim}; it must be even, since rotary embeddings rotate pairs")

    def __repr__(self) -> str:
        """Return the call that makes an equal configuration, with the fields that differ from their defaults."""
        given = [f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if self._is_set(field)]
        return f"ModelConfig({', '.join(given)})"

    def _is_set(self, field: Field[Any]) -> bool:
        derived = {"n_kv_heads": self.n_heads, "head_dim": self.dim // self.n_heads}
        return getattr(self, field.name) not in (field.default, derived.get(field.name))

    def _convert_numbers(self) -> None:
        """Make numbers Python's own: JSON may have 500000 for 500000.0, and a program NumPy's numbers."""
        for field in fields(self):
            kind = {"int": int, "float": float, "bool": bool}[str(field.type)]
            object.__setattr__(self, field.name, kind(getattr(self, field.name)))

    @classmethod
    @checked(options=ModelConfigOptions)
    def preset(cls, name: str, **overrides: Unpack[ModelConfigOptions]) -> ModelConfig:
        """Return a preset, with some of its fields replaced.

        Args:
            name: A key of `PRESETS`, such as "llama3-8b".
            **overrides: Fields to replace.

        Raises:
            InputError: When the preset is unknown, or a value is invalid.

        >>> ModelConfig.preset("micro", vocab_size=512).vocab_size
        512
        """
        if name not in PRESETS:
            meant = did_you_mean(name, PRESETS)
            raise InputError(f"there is no model preset {name!r}; choose one of {', '.join(PRESETS)}{meant}")
        return cls(**{**PRESETS[name], **overrides})

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> ModelConfig:
        """Return the configuration that a params.json describes.

        The feed-forward size is `hidden_dim` if present, otherwise derived from `multiple_of` and `ffn_dim_multiplier`
        as in Meta's reference code.

        Meta's params.json for Llama 3.2 states neither the tied embeddings, nor the RoPE scaling factor of 32, nor the
        context of 131,072. If a file with scaled RoPE leaves these out, they come from the preset of the same shape.
        Files of Llama 1 and 2 have no rope_theta, which is then 10,000, and no context, which is that of the preset of
        the same shape, or else 2,048.

        Args:
            params: The content of the file: Meta's keys, and the fields of this class.

        Raises:
            InputError: When a key is missing, or unknown (since it may change what the model computes), or a value is
                invalid.
        """
        given = {key: value for key, value in params.items() if value is not None and key not in _HARMLESS_KEYS}
        multiple_of, multiplier = given.pop("multiple_of", 256), given.pop("ffn_dim_multiplier", None)
        if any(params.get(key) is not None for key in _DERIVING_KEYS) or "hidden_dim" not in given:
            derived = feed_forward_size(_positive(given, "dim"), multiple_of, multiplier)
            if given.setdefault("hidden_dim", derived) != derived:
                raise InputError(
                    f"hidden_dim is {given['hidden_dim']}, but multiple_of and ffn_dim_multiplier make it {derived}"
                )
        if given.get("use_scaled_rope"):
            for preset in (PRESETS["llama3.2-1b"], PRESETS["llama3.2-3b"]):
                if all(given.get(key) == preset[key] for key in ("dim", "n_layers", "n_heads")):
                    given = {**_LLAMA_3_2, **given}
            given.setdefault("max_seq_len", _LLAMA_3_1["max_seq_len"])
        elif "rope_theta" not in given:
            context = _LLAMA_1_7B["max_seq_len"]
            for preset in (PRESETS[name] for name in PRESETS if name.startswith("llama2")):
                if all(
                    given.get(key) == preset[key] for key in ("dim", "n_layers", "n_heads", "hidden_dim", "norm_eps")
                ):
                    context = preset["max_seq_len"]
            given = {"rope_theta": _LLAMA_1_7B["rope_theta"], "max_seq_len": context, **given}
        return cls._from_mapping(given, "params.json")

    @classmethod
    def _from_mapping(cls, values: Mapping[str, Any], source: str) -> ModelConfig:
        known = [field.name for field in fields(cls)]
        unknown = [key for key in values if key not in known]
        if unknown:
            meant = did_you_mean(unknown[0], known)
            raise InputError(
                f"{source}: unknown {', '.join(map(repr, unknown))}; known keys are {', '.join(known)}{meant}"
            )
        missing = [key for key in ("dim", "n_layers", "n_heads", "vocab_size") if key not in values]
        if missing:
            raise InputError(f"{source}: missing {', '.join(missing)}")
        return cls(**values)

    def to_params(self) -> dict[str, Any]:
        """Return the content of params.json: Meta's keys, so that tools for Meta's files can read it, and our own keys.

        `from_params(config.to_params())` returns an equal configuration. `multiple_of` and `ffn_dim_multiplier` are
        chosen so that Meta's rule results in `hidden_dim`: rounding up to a multiple of `hidden_dim` gives `hidden_dim`
        if the multiplier brings the number before rounding to at most `hidden_dim`.
        """
        before_rounding = 2 * 4 * self.dim // 3
        multiplier = self.hidden_dim / before_rounding if before_rounding > self.hidden_dim else None
        params = {field.name: getattr(self, field.name) for field in fields(self)}
        return params | {"multiple_of": self.hidden_dim, "ffn_dim_multiplier": multiplier}

    def parameters(self) -> dict[str, int]:
        """Return the number of parameters of each part of the model. Tied embeddings count once, under "embedding"."""
        queries, keys = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        matrices = 2 * self.dim * (queries + keys)
        biases = self.qkv_bias * (queries + 2 * keys) + self.wo_bias * self.dim
        vocabulary = self.vocab_size * self.dim
        return {
            "embedding": vocabulary,
            "attention": self.n_layers * (matrices + biases),
            "feed_forward": self.n_layers * 3 * self.dim * self.hidden_dim,
            "norms": (2 * self.n_layers + 1) * self.dim,
            "output": 0 if self.tied_embeddings else vocabulary,
        }

    @property
    def n_parameters(self) -> int:
        """The number of parameters of the whole model."""
        return sum(self.parameters().values())

    def kv_cache_bytes(self, batch: int, length: int, bytes_per_number: int) -> int:
        """Return the size of a KV cache in bytes, for `length` positions of `batch` sequences."""
        return 2 * self.n_layers * batch * self.n_kv_heads * length * self.head_dim * bytes_per_number

    def prefill_flops(self, length: int) -> int:
        """Return the floating-point operations to read `length` tokens from position 0 and compute the last logits.

        A multiply-add counts as two operations. Only matrix products count: norms, activations and rotations are below
        one percent.
        """
        layers = 2 * self._layer_matrices() * length
        pairs = length * (length + 1) // 2  # each token attends to itself and all tokens before it
        return layers + self._attention_flops(pairs) + 2 * self.vocab_size * self.dim

    def decode_flops(self, position: int) -> int:
        """Return the floating-point operations to read the token at `position`, from 0, with a cache, and its logits.

        Counted as in `prefill_flops`: the increment from one length to the next, plus one use of the output matrix.
        """
        layers = 2 * self._layer_matrices()
        return layers + self._attention_flops(position + 1) + 2 * self.vocab_size * self.dim

    def training_flops(self, length: int) -> int:
        """Return the floating-point operations to train on a sequence of `length` tokens.

        The forward pass, with the logits of every token, plus twice as many for the gradients (Kaplan et al. 2020,
        arXiv:2001.08361, section 2.1). Recomputation by activation checkpointing is not counted.
        """
        reading = self.prefill_flops(length) + 2 * (length - 1) * self.vocab_size * self.dim
        return 3 * reading

    def _layer_matrices(self) -> int:
        attention = 2 * self.dim * (self.n_heads + self.n_kv_heads) * self.head_dim
        return self.n_layers * (attention + 3 * self.dim * self.hidden_dim)

    def _attention_flops(self, pairs: int) -> int:
        # Query times key, and probability times value: head_dim multiply-adds each, in every head of every layer.
        return 4 * self.n_layers * self.n_heads * self.head_dim * pairs


def feed_forward_size(dim: int, multiple_of: int = 256, ffn_dim_multiplier: float | None = None) -> int:
    """Return the feed-forward size by Meta's rule (Llama 3 reference code, class FeedForward and its caller).

    Two thirds of 4 * dim, since a gated unit has three matrices instead of two; times the multiplier; rounded up to a
    multiple.

    Args:
        dim: The size of the residual stream.
        multiple_of: The result is a multiple of this number.
        ffn_dim_multiplier: The factor before rounding; None means 1.

    Raises:
        InputError: When `multiple_of` or `ffn_dim_multiplier` is invalid.

    >>> feed_forward_size(4096, 1024, 1.3)
    14336
    """
    if isinstance(multiple_of, bool) or not isinstance(multiple_of, int) or multiple_of <= 0:
        raise InputError(f"multiple_of is {multiple_of!r}; expected a positive whole number")
    hidden = 2 * 4 * dim // 3
    if ffn_dim_multiplier is not None:
        if not isinstance(ffn_dim_multiplier, int | float) or not (0 < ffn_dim_multiplier < math.inf):
            raise InputError(f"ffn_dim_multiplier is {ffn_dim_multiplier!r}; expected a positive number")
        hidden = int(ffn_dim_multiplier * hidden)
    return max(1, -(-hidden // multiple_of)) * multiple_of


def _positive(values: Mapping[str, Any], name: str) -> int:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise InputError(f"{name} is {value!r}; expected a positive whole number")
    return value
