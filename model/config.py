"""The configuration of a Llama: its sizes, its presets, and what they cost in parameters, memory and arithmetic.

Nothing here allocates a weight or imports torch, so the cost of a 405B model can be computed on a laptop.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict, get_args

from bpe.arguments import checked
from bpe.errors import InputError, did_you_mean
from model.presets import LLAMA_1_7B, LLAMA_3_1, LLAMA_3_2
from model.presets import PRESETS as PRESETS
from model.vision_config import EXTRA_EMBEDDINGS, VisionConfig

if TYPE_CHECKING:
    from typing_extensions import Unpack

# The keys of Meta's params.json that determine the feed-forward size, and those that have no effect. All other keys are
# fields of ModelConfig.
_DERIVING_KEYS = ("multiple_of", "ffn_dim_multiplier")
_HARMLESS_KEYS = ("max_batch_size",)
RopeScaling = Literal["none", "llama3", "linear", "dynamic", "yarn", "longrope"]
Activation = Literal["silu", "gelu", "gelu_tanh"]
QkNorm = Literal["none", "head", "all"]
Rope = Literal["global", "local", "none"]
_CHOICES = {"RopeScaling": get_args(RopeScaling), "Activation": get_args(Activation), "QkNorm": get_args(QkNorm)}
_POSITIVE = (
    "norm_eps", "rope_theta", "rope_scaling_factor", "rope_low_freq_factor", "rope_high_freq_factor",
    "rope_beta_fast", "rope_beta_slow", "rope_attention_factor", "embedding_multiplier", "residual_multiplier",
    "logits_scaling",
)  # fmt: skip
_LLAMA = {
    "dim", "n_layers", "n_heads", "vocab_size", "n_kv_heads", "head_dim", "hidden_dim", "norm_eps", "max_seq_len",
    "tied_embeddings", "rope_theta", "rope_scaling", "rope_scaling_factor", "rope_low_freq_factor",
    "rope_high_freq_factor", "rope_original_length", "qkv_bias", "wo_bias",
}  # fmt: skip
"""The fields in which Llamas differ from each other."""
_MAX_LAYERS = 1024  # eight times the deepest Llama; rejects damaged files that say a billion
_MAX_EXPERTS = 4096  # eight times the most that llama.cpp takes; a damaged file may say a billion


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
    rope_scaling: RopeScaling
    rope_scaling_factor: float
    rope_low_freq_factor: float
    rope_high_freq_factor: float
    rope_original_length: int
    max_seq_len: int
    tied_embeddings: bool
    qkv_bias: bool
    wo_bias: bool
    rope_beta_fast: float
    rope_beta_slow: float
    rope_truncate: bool
    rope_attention_factor: float
    rope_short_factors: tuple[float, ...]
    rope_long_factors: tuple[float, ...]
    rotary_dim: int
    local_rope_theta: float
    unrotated_layers: tuple[int, ...]
    windows: tuple[int, ...]
    qk_norm: QkNorm
    attention_multiplier: float
    attention_softcap: float
    ffn_bias: bool
    activation: Activation
    n_experts: int
    n_experts_per_token: int
    expert_hidden_dim: int
    normalize_experts: bool
    dense_layers: tuple[int, ...]
    pre_norm: bool
    post_norm: bool
    norm_offset: bool
    embedding_multiplier: float
    residual_multiplier: float
    logits_scaling: float
    logits_softcap: float
    cross_attention_layers: tuple[int, ...]
    vision: VisionConfig | None


class LayerKind(NamedTuple):
    """What the attention of a layer sees. Layers of the same kind share masks and rotations."""

    window: int
    """The number of tokens that a token attends to, itself included; 0 for all."""
    rope: Rope
    """Which rotary positions it has: those of rope_theta, those of local_rope_theta, or none."""


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
        rope_scaling: How the rotary frequencies are changed for a longer context: "none", "llama3" (Llama 3.1),
            "linear", "dynamic", "yarn" or "longrope"; see `model.rotary.rope_frequencies`.
        rope_scaling_factor: The factor of the scaling; without use for "longrope".
        rope_low_freq_factor: For "llama3": wavelengths above rope_original_length / rope_low_freq_factor are scaled
            fully.
        rope_high_freq_factor: For "llama3": wavelengths below rope_original_length / rope_high_freq_factor are not
            scaled.
        rope_original_length: The context length before scaling, in tokens.
        max_seq_len: The context length, in tokens.
        tied_embeddings: Whether the output matrix is the embedding matrix.
        qkv_bias: Whether wq, wk and wv have a bias.
        wo_bias: Whether wo has a bias.
        rope_beta_fast: For "yarn": frequencies with more turns in the original context are not scaled.
        rope_beta_slow: For "yarn": frequencies with fewer turns are scaled fully.
        rope_truncate: For "yarn": whether the bounds of the mixture are rounded outwards to whole pairs.
        rope_attention_factor: For "yarn" and "longrope": a factor of rotated queries and keys.
        rope_short_factors: For "longrope": the divisor of each frequency within the original context.
        rope_long_factors: For "longrope": the divisor of each frequency beyond the original context.
        rotary_dim: How many numbers of a head are rotated, the first; 0 means head_dim.
        local_rope_theta: The base of the rotary frequencies in layers with a window, without scaling; 0 means that they
            are those of the other layers.
        unrotated_layers: The numbers of the layers without rotary positions.
        windows: For each layer, how many tokens a token attends to, itself included; 0 means all. () means all in every
            layer.
        qk_norm: Whether queries and keys are normalised before they are rotated: "none", each "head" with the same
            weights, or "all" heads together.
        attention_multiplier: The factor of the scores of attention; 0 means 1 / sqrt(head_dim).
        attention_softcap: The bound c of the scores of attention, which become c * tanh(score / c); 0 means none.
        ffn_bias: Whether w1, w2 and w3 have a bias.
        activation: The function of the gate: "silu", "gelu", or its approximation "gelu_tanh".
        n_experts: The number of feed-forward networks of a layer that the router chooses from; 0 means one network and
            no router.
        n_experts_per_token: How many of them read a token.
        expert_hidden_dim: The size of an expert; 0 means hidden_dim.
        normalize_experts: Whether the weights of the chosen experts sum to 1.
        dense_layers: The numbers of the layers that have one network in spite of n_experts.
        pre_norm: Whether attention and feed-forward network read the normalised stream.
        post_norm: Whether their results are normalised before they are added to the stream.
        norm_offset: Whether norms multiply by 1 + weight instead of weight.
        embedding_multiplier: The factor of the embeddings, rounded to the dtype of the weights.
        residual_multiplier: The factor of what a layer adds to the stream.
        logits_scaling: The divisor of the logits.
        logits_softcap: The bound of the logits, as attention_softcap; 0 means none.
        cross_attention_layers: The numbers of the layers that read images instead of text; they need `vision`.
        vision: The configuration of the image encoder, or a mapping of its fields; None for a model without images.

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
    rope_scaling: RopeScaling = "none"
    rope_scaling_factor: float = 8.0
    rope_low_freq_factor: float = 1.0
    rope_high_freq_factor: float = 4.0
    rope_original_length: int = 8192
    max_seq_len: int = 8192
    tied_embeddings: bool = False
    qkv_bias: bool = False
    wo_bias: bool = False
    rope_beta_fast: float = 32.0
    rope_beta_slow: float = 1.0
    rope_truncate: bool = True
    rope_attention_factor: float = 1.0
    rope_short_factors: tuple[float, ...] = ()
    rope_long_factors: tuple[float, ...] = ()
    rotary_dim: int = 0
    local_rope_theta: float = 0.0
    unrotated_layers: tuple[int, ...] = ()
    windows: tuple[int, ...] = ()
    qk_norm: QkNorm = "none"
    attention_multiplier: float = 0.0
    attention_softcap: float = 0.0
    ffn_bias: bool = False
    activation: Activation = "silu"
    n_experts: int = 0
    n_experts_per_token: int = 0
    expert_hidden_dim: int = 0
    normalize_experts: bool = True
    dense_layers: tuple[int, ...] = ()
    pre_norm: bool = True
    post_norm: bool = False
    norm_offset: bool = False
    embedding_multiplier: float = 1.0
    residual_multiplier: float = 1.0
    logits_scaling: float = 1.0
    logits_softcap: float = 0.0
    cross_attention_layers: tuple[int, ...] = ()
    vision: VisionConfig | None = None

    def __post_init__(self) -> None:
        self._convert_numbers()
        self._check_ranges()
        self._derive("n_kv_heads", self.n_heads)
        self._derive("head_dim", self.dim // self.n_heads)
        self._derive("hidden_dim", feed_forward_size(self.dim))
        # These stay 0, so that dataclasses.replace() with another head_dim or hidden_dim changes them, too.
        self._leave_out("rotary_dim", self.head_dim)
        self._leave_out("attention_multiplier", self.head_dim**-0.5)
        self._leave_out("expert_hidden_dim", self.hidden_dim)
        if self.n_heads % self.n_kv_heads:
            raise InputError(
                f"n_heads ({self.n_heads}) is not divisible by n_kv_heads ({self.n_kv_heads}); change one of them"
            )
        if self.head_dim % 2:
            raise InputError(f"head_dim is {self.head_dim}; it must be even, since rotary embeddings rotate pairs")
        if self.rotary_dim % 2 or self.rotary_dim > self.head_dim:
            raise InputError(
                f"rotary_dim is {self.rotary_dim}; it must be even, and at most head_dim ({self.head_dim})"
            )
        self._check_rope()
        self._check_layers()

    def _derive(self, name: str, value: float) -> None:
        """Set a field that was left at 0."""
        if not getattr(self, name):
            object.__setattr__(self, name, value)

    def _leave_out(self, name: str, default: float) -> None:
        """Set a field that has its default to 0, so that equal configurations compare equal."""
        if getattr(self, name) == default:
            object.__setattr__(self, name, 0)

    @property
    def rotated_dim(self) -> int:
        """How many numbers of a head are rotated."""
        return self.rotary_dim or self.head_dim

    @property
    def embedding_rows(self) -> int:
        """The number of ids that the model reads: those of the vocabulary and, with images, of the image token."""
        return self.vocab_size + (EXTRA_EMBEDDINGS if self.vision is not None else 0)

    def check_tokens(self, n_vocab: int) -> None:
        """Refuse a tokenizer with more ids than the embedding has rows.

        Args:
            n_vocab: The number of ids of the tokenizer.

        Raises:
            InputError: When an id has no row.
        """
        if n_vocab > self.embedding_rows:
            raise InputError(
                f"the tokenizer has {n_vocab} tokens, but the model only {self.embedding_rows}; they do not belong"
                " together: copy the tokenizer that came with the model, which bpe convert --resize-vocab can then"
                " replace by a larger one"
            )

    @property
    def image_token(self) -> int | None:
        """The id of the token that stands for an image; None for a model without images."""
        return None if self.vision is None else self.vision.image_token or self.vocab_size

    @property
    def attention_scale(self) -> float:
        """The factor of the scores of attention."""
        return self.attention_multiplier or self.head_dim**-0.5

    @property
    def expert_size(self) -> int:
        """The size of an expert's feed-forward network."""
        return self.expert_hidden_dim or self.hidden_dim

    def _check_ranges(self) -> None:
        for name in ("dim", "n_layers", "n_heads", "vocab_size", "max_seq_len", "rope_original_length"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.n_layers > _MAX_LAYERS:
            raise InputError(f"n_layers is {self.n_layers}; it must be at most {_MAX_LAYERS}")
        if self.n_experts > _MAX_EXPERTS:
            raise InputError(f"n_experts is {self.n_experts}; it must be at most {_MAX_EXPERTS}")
        for name in ("n_kv_heads", "head_dim", "hidden_dim", "rotary_dim", "expert_hidden_dim"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be positive, or 0 for the default")
        for name in _POSITIVE:
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"{name} is {getattr(self, name)}; it must be a positive number")
        for name in ("attention_multiplier", "attention_softcap", "logits_softcap", "local_rope_theta"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InputError(f"{name} is {getattr(self, name)}; it must be a positive number, or 0")
        if self.rope_high_freq_factor <= self.rope_low_freq_factor:
            raise InputError(
                f"rope_high_freq_factor ({self.rope_high_freq_factor}) must exceed "
                f"rope_low_freq_factor ({self.rope_low_freq_factor})"
            )
        if self.head_dim == 0 and self.dim % self.n_heads:
            raise InputError(
                f"dim ({self.dim}) is not divisible by n_heads ({self.n_heads}); change one of them, or set head_dim"
            )
        if not (self.pre_norm or self.post_norm):
            raise InputError("pre_norm and post_norm are both false; a layer needs one of them")
        if self.n_experts < 0 or not (0 <= self.n_experts_per_token <= self.n_experts):
            raise InputError(
                f"n_experts_per_token is {self.n_experts_per_token}; it must be from 1 to n_experts ({self.n_experts})"
            )
        if bool(self.n_experts) != bool(self.n_experts_per_token):
            raise InputError(f"n_experts is {self.n_experts}, but n_experts_per_token is {self.n_experts_per_token}")

    def _check_rope(self) -> None:
        factors = (self.rope_short_factors, self.rope_long_factors)
        if self.rope_scaling == "longrope":
            for name, numbers in zip(("rope_short_factors", "rope_long_factors"), factors, strict=True):
                if len(numbers) != self.rotated_dim // 2:
                    raise InputError(
                        f"{name} has {len(numbers)} numbers; it must have rotary_dim / 2, one for each pair"
                    )
                if not all(math.isfinite(number) and number > 0 for number in numbers):
                    raise InputError(f"{name} has a number that is not positive")
        elif any(factors):
            raise InputError('rope_short_factors and rope_long_factors need rope_scaling "longrope"')
        if self.rope_scaling == "dynamic" and self.rotated_dim < 4:
            raise InputError(f"rotary_dim is {self.rotated_dim}; dynamic scaling needs at least 4")
        if self.rope_scaling in ("yarn", "dynamic") and self.rope_theta <= 1:
            raise InputError(f"rope_theta is {self.rope_theta}; {self.rope_scaling} scaling needs more than 1")

    def _check_layers(self) -> None:
        """Check the fields that name layers, and bring equal settings to the same form."""
        for name in ("unrotated_layers", "dense_layers", "cross_attention_layers"):
            layers = getattr(self, name)
            wrong = [layer for layer in layers if not 0 <= layer < self.n_layers]
            if wrong:
                raise InputError(f"{name} has {wrong[0]}; the layers are 0 to {self.n_layers - 1}")
            object.__setattr__(self, name, tuple(sorted(set(layers))))
        if self.windows and len(self.windows) != self.n_layers:
            raise InputError(
                f"windows has {len(self.windows)} numbers; it must have one for each of {self.n_layers} layers"
            )
        if any(window < 0 for window in self.windows):
            raise InputError(f"windows has {min(self.windows)}; a window is positive, or 0 for all tokens")
        if not any(self.windows):
            object.__setattr__(self, "windows", ())
        if bool(self.cross_attention_layers) != (self.vision is not None):
            raise InputError("cross_attention_layers and vision need each other; set both or neither")
        if len(self.cross_attention_layers) == self.n_layers:
            raise InputError("cross_attention_layers has all layers; a model needs layers that read text")
        if self.vision is not None:
            self._check_vision(self.vision)

    def _check_vision(self, vision: VisionConfig) -> None:
        """Check the fields that a model with images must have."""
        if vision.image_token >= self.embedding_rows:
            raise InputError(f"vision: image_token is {vision.image_token}; the ids are 0 to {self.embedding_rows - 1}")
        if vision.image_token == self.vocab_size:
            object.__setattr__(self, "vision", dataclasses.replace(vision, image_token=0))
        allowed = ("cross_attention_layers", "vision", "activation")
        unlike = [name for name in self.unlike_llama() if name not in allowed and not name.startswith("rope_")]
        if self.head_dim * self.n_heads != self.dim:
            unlike.append("head_dim")
        if unlike or self.tied_embeddings or self.qkv_bias or self.wo_bias:
            wrong = [*unlike, *(name for name in ("tied_embeddings", "qkv_bias", "wo_bias") if getattr(self, name))]
            raise InputError(f"{wrong[0]} is set, which a model with images does not have; unset it, or vision")

    def layer_kind(self, layer: int) -> LayerKind:
        """Return what the attention of a layer sees."""
        window = self.windows[layer] if self.windows else 0
        if layer in self.unrotated_layers:
            return LayerKind(window, "none")
        return LayerKind(window, "local" if window and self.local_rope_theta else "global")

    def unlike_llama(self) -> list[str]:
        """Return the names of the fields that differ from those of every Llama: what only its relatives have."""
        names = [field.name for field in fields(self) if field.name not in _LLAMA and self._is_set(field)]
        return names + (["rope_scaling"] if self.rope_scaling not in ("none", "llama3") else [])

    def has_experts(self, layer: int) -> bool:
        """Return whether a layer has a router and experts."""
        return self.n_experts > 0 and layer not in self.dense_layers

    def __repr__(self) -> str:
        """Return the call that makes an equal configuration, with the fields that differ from their defaults."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if self._is_set(field)}
        if self.vision is not None:
            values["vision"] = self.vision.set_fields()
            layers = self.cross_attention_layers
            evenly = range(layers[0], self.n_layers, layers[1] - layers[0]) if len(layers) > 2 else layers
            values["cross_attention_layers"] = evenly if tuple(evenly) == layers else layers
        given = [f"{name}={_short(value)}" for name, value in values.items()]
        return f"ModelConfig({', '.join(given)})"

    def _is_set(self, field: Field[Any]) -> bool:
        derived = {"n_kv_heads": self.n_heads, "head_dim": self.dim // self.n_heads}
        return getattr(self, field.name) not in (field.default, derived.get(field.name))

    def _convert_numbers(self) -> None:
        """Make values Python's own: JSON may have 500000 for 500000.0, and a program NumPy's numbers."""
        object.__setattr__(self, "vision", _vision(self.vision))
        for field in fields(self):
            value = getattr(self, field.name)
            kind = str(field.type)
            if kind.startswith("VisionConfig"):
                continue
            try:
                if kind in _CHOICES:
                    if value not in _CHOICES[kind]:
                        choices = ", ".join(map(repr, _CHOICES[kind]))
                        raise InputError(f"{field.name} is {value!r}; expected one of {choices}")
                elif kind.startswith("tuple"):
                    number = int if "int" in kind else float
                    value = tuple(_exact(number, item) for item in value)
                else:
                    value = {"int": int, "float": float, "bool": bool}[kind](value)
            except (TypeError, ValueError, OverflowError):
                raise InputError(f"{field.name} is {value!r}; expected a list of numbers") from None
            object.__setattr__(self, field.name, value)

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
        scaled = given.pop("use_scaled_rope", None)  # Meta's key for the scaling of Llama 3.1
        if scaled is not None:
            if not isinstance(scaled, bool):
                raise InputError(f"use_scaled_rope is {scaled!r}; expected true or false")
            if given.setdefault("rope_scaling", "llama3" if scaled else "none") == "llama3" and not scaled:
                raise InputError("use_scaled_rope is false, but rope_scaling is 'llama3'; remove one of them")
        multiple_of, multiplier = given.pop("multiple_of", 256), given.pop("ffn_dim_multiplier", None)
        if any(params.get(key) is not None for key in _DERIVING_KEYS) or "hidden_dim" not in given:
            derived = feed_forward_size(_positive(given, "dim"), multiple_of, multiplier)
            if given.setdefault("hidden_dim", derived) != derived:
                raise InputError(
                    f"hidden_dim is {given['hidden_dim']}, but multiple_of and ffn_dim_multiplier make it {derived}"
                )
        if given.get("rope_scaling") == "llama3":
            for preset in (PRESETS["llama3.2-1b"], PRESETS["llama3.2-3b"]):
                if all(given.get(key) == preset[key] for key in ("dim", "n_layers", "n_heads")):
                    given = {**LLAMA_3_2, **given}
            given.setdefault("max_seq_len", LLAMA_3_1["max_seq_len"])
        elif "rope_theta" not in given:
            context = LLAMA_1_7B["max_seq_len"]
            for preset in (PRESETS[name] for name in PRESETS if name.startswith("llama2")):
                if all(
                    given.get(key) == preset[key] for key in ("dim", "n_layers", "n_heads", "hidden_dim", "norm_eps")
                ):
                    context = preset["max_seq_len"]
            given = {"rope_theta": LLAMA_1_7B["rope_theta"], "max_seq_len": context, **given}
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

        Fields that only relatives of Llama have are left out where they have their defaults.

        `from_params(config.to_params())` returns an equal configuration. `multiple_of` and `ffn_dim_multiplier` are
        chosen so that Meta's rule results in `hidden_dim`: rounding up to a multiple of `hidden_dim` gives `hidden_dim`
        if the multiplier brings the number before rounding to at most `hidden_dim`.
        """
        before_rounding = 2 * 4 * self.dim // 3
        multiplier = self.hidden_dim / before_rounding if before_rounding > self.hidden_dim else None
        values = json.loads(json.dumps(dataclasses.asdict(self)))  # with lists instead of tuples, as a file is read
        params = {name: values[name] for name in values if name in _LLAMA or name in self.unlike_llama()}
        if self.rope_scaling in ("none", "llama3"):  # Meta has a key for this
            del params["rope_scaling"]
        scaled = self.rope_scaling == "llama3"
        return params | {"use_scaled_rope": scaled, "multiple_of": self.hidden_dim, "ffn_dim_multiplier": multiplier}

    def parameters(self) -> dict[str, int]:
        """Return the number of parameters of each part of the model. Tied embeddings count once, under "embedding"."""
        queries, keys = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        matrices = 2 * self.dim * (queries + keys)
        biases = self.qkv_bias * (queries + 2 * keys) + self.wo_bias * self.dim
        head_norms = {"none": 0, "head": 2 * self.head_dim, "all": queries + keys}[self.qk_norm]
        routed = sum(self.has_experts(layer) for layer in range(self.n_layers))
        experts = self.n_experts * (self._feed_forward(self.expert_size) + self.dim)  # a row of the router each
        norms = 2 * (self.pre_norm + self.post_norm) * self.dim
        crossing = len(self.cross_attention_layers)  # each with norms of heads, and two gates
        vision = {} if self.vision is None else {"vision": self.vision.parameters(self.dim)}
        return {
            "embedding": self.embedding_rows * self.dim,
            "attention": self.n_layers * (matrices + biases) + 2 * crossing,
            "feed_forward": (self.n_layers - routed) * self._feed_forward(self.hidden_dim) + routed * experts,
            "norms": self.n_layers * (norms + head_norms) + self.dim + crossing * 2 * self.head_dim,
            "output": 0 if self.tied_embeddings else self.vocab_size * self.dim,
            **vision,
        }

    def _feed_forward(self, hidden: int) -> int:
        return 3 * self.dim * hidden + self.ffn_bias * (2 * hidden + self.dim)

    @property
    def n_parameters(self) -> int:
        """The number of parameters of the whole model."""
        return sum(self.parameters().values())

    def kv_cache_bytes(self, batch: int, length: int, bytes_per_number: int) -> int:
        """Return the size of a KV cache in bytes, for `length` positions of `batch` sequences, without images."""
        return 2 * self._text_layers * batch * self.n_kv_heads * length * self.head_dim * bytes_per_number

    @property
    def _text_layers(self) -> int:
        """How many layers read a text without images."""
        return self.n_layers - len(self.cross_attention_layers)

    def prefill_flops(self, length: int) -> int:
        """Return the floating-point operations to read `length` tokens from position 0 and compute the last logits.

        A multiply-add counts as two operations. Only matrix products count: norms, activations and rotations are below
        one percent.
        """
        layers = 2 * self._layer_matrices() * length
        return layers + self._attention_flops(0, length) + 2 * self.vocab_size * self.dim

    def decode_flops(self, position: int) -> int:
        """Return the floating-point operations to read the token at `position`, from 0, with a cache, and its logits.

        Counted as in `prefill_flops`: the increment from one length to the next, plus one use of the output matrix.
        """
        layers = 2 * self._layer_matrices()
        return layers + self._attention_flops(position, position + 1) + 2 * self.vocab_size * self.dim

    def training_flops(self, length: int) -> int:
        """Return the floating-point operations to train on a sequence of `length` tokens.

        The forward pass, with the logits of every token, plus twice as many for the gradients (Kaplan et al. 2020,
        arXiv:2001.08361, section 2.1). Recomputation by activation checkpointing is not counted.
        """
        reading = self.prefill_flops(length) + 2 * (length - 1) * self.vocab_size * self.dim
        return 3 * reading

    def _layer_matrices(self) -> int:
        """Return how many weights of matrices read a token, in all layers."""
        attention = 2 * self.dim * (self.n_heads + self.n_kv_heads) * self.head_dim
        routed = sum(self.has_experts(layer) for layer in range(self.n_layers))
        expert = self.n_experts * self.dim + 3 * self.dim * self.expert_size * self.n_experts_per_token
        dense = 3 * self.dim * self.hidden_dim
        return self._text_layers * attention + (self._text_layers - routed) * dense + routed * expert

    def _attention_flops(self, start: int, end: int) -> int:
        """Return the operations of the attention of the tokens from `start` to `end` - 1."""
        # Query times key, and probability times value: head_dim multiply-adds each, in every head of every layer.
        pairs = sum(_pairs(end, window) - _pairs(start, window) for window in self.windows or (0,) * self._text_layers)
        return 4 * self.n_heads * self.head_dim * pairs


def _pairs(length: int, window: int) -> int:
    """Return how many tokens the first `length` tokens attend to: each to itself and the tokens before, in a window."""
    full = min(length, window or length)
    return full * (full + 1) // 2 + (length - full) * full


def _vision(value: Any) -> VisionConfig | None:
    """Return the configuration of an image encoder, from itself or from a mapping of its fields."""
    if value is None or isinstance(value, VisionConfig):
        return value
    if not isinstance(value, Mapping):
        raise InputError(f"vision is {value!r}; expected an object with the sizes of an image encoder")
    known = [field.name for field in fields(VisionConfig)]
    unknown = [key for key in value if key not in known]
    if unknown:
        raise InputError(f"vision: unknown {unknown[0]!r}; known keys are {', '.join(known)}")
    return VisionConfig(**value)


def _short(value: Any) -> str:
    """Return the repr of a value, with a tuple that repeats itself as a product: (4096, 0) * 13."""
    if isinstance(value, tuple):
        for period in range(1, len(value) // 2 + 1):
            if all(item == value[place % period] for place, item in enumerate(value)):
                end = f"[:{len(value)}]" if len(value) % period else ""
                product = f"{value[:period]!r} * {-(-len(value) // period)}"
                return f"({product}){end}" if end else product
    return repr(value)


def _exact(kind: type, value: Any) -> Any:
    """Return a number of a kind; raise ValueError for another value, such as a bool, or 1.5 as int."""
    if isinstance(value, bool) or not hasattr(value, "__float__") or kind(value) != value:
        raise ValueError
    return kind(value)


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


PARAMS_KEYS = {*(field.name for field in fields(ModelConfig)), *_DERIVING_KEYS, *_HARMLESS_KEYS, "use_scaled_rope"}
"""The keys of a params.json that `ModelConfig.from_params` takes."""
