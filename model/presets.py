"""The presets: published sizes of models, and sizes to train at home. Data only."""

from __future__ import annotations

import math
from typing import Any

LLAMA_1_7B: dict[str, Any] = {
    "dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "hidden_dim": 11008,
    "vocab_size": 32000, "rope_theta": 10000.0, "max_seq_len": 2048, "norm_eps": 1e-6,
}  # fmt: skip
_LLAMA_1_13B: dict[str, Any] = {
    **LLAMA_1_7B, "dim": 5120, "n_layers": 40, "n_heads": 40, "n_kv_heads": 40, "hidden_dim": 13824,
}  # fmt: skip
_LLAMA_2: dict[str, Any] = {"max_seq_len": 4096, "norm_eps": 1e-5}
_LLAMA_3_8B: dict[str, Any] = {
    "dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "hidden_dim": 14336,
    "vocab_size": 128256, "rope_theta": 500000.0, "max_seq_len": 8192,
}  # fmt: skip
_LLAMA_3_70B: dict[str, Any] = {**_LLAMA_3_8B, "dim": 8192, "n_layers": 80, "n_heads": 64, "hidden_dim": 28672}
LLAMA_3_1: dict[str, Any] = {"rope_scaling": "llama3", "max_seq_len": 131072}
LLAMA_3_2: dict[str, Any] = {**LLAMA_3_1, "rope_scaling_factor": 32.0, "tied_embeddings": True}
_VISION: dict[str, Any] = {**LLAMA_3_1, "vision": {}}
_SMOLLM2: dict[str, Any] = {
    "vocab_size": 49152, "rope_theta": 100000.0, "max_seq_len": 8192, "tied_embeddings": True,
}  # fmt: skip


_SIZES = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len")


def _shape(*sizes: int, **settings: Any) -> dict[str, Any]:
    return {**dict(zip(_SIZES, sizes, strict=True)), **settings}


def _gemma(dim: int, *sizes: int, **settings: Any) -> dict[str, Any]:
    shared = {
        "head_dim": 256, "norm_eps": 1e-6, "rope_theta": 10000.0, "tied_embeddings": True, "activation": "gelu_tanh",
        "norm_offset": True, "embedding_multiplier": math.sqrt(dim),
    }  # fmt: skip
    return _shape(dim, *sizes, **{**shared, **settings})


def _gemma2(dim: int, hidden_dim: int, n_layers: int, *heads: int, **settings: Any) -> dict[str, Any]:
    return _gemma(
        dim, hidden_dim, n_layers, *heads, 256000, 8192, windows=(4096, 0) * (n_layers // 2), post_norm=True,
        attention_softcap=50.0, logits_softcap=30.0, **settings,
    )  # fmt: skip


def _qwen2_5(*sizes: int, tied: bool = False) -> dict[str, Any]:
    return _shape(*sizes, 32768, norm_eps=1e-6, rope_theta=1e6, qkv_bias=True, tied_embeddings=tied)


def _qwen3(*sizes: int, tied: bool = False, **settings: Any) -> dict[str, Any]:
    shared = {"norm_eps": 1e-6, "rope_theta": 1e6, "head_dim": 128, "qk_norm": "head", "tied_embeddings": tied}
    return _shape(*sizes, 151936, 40960, **shared, **settings)


def _mistral(vocab_size: int, theta: float, **settings: Any) -> dict[str, Any]:
    return {**_shape(4096, 14336, 32, 32, 8, vocab_size, 32768, rope_theta=theta), **settings}


def _granite(*sizes: int, **settings: Any) -> dict[str, Any]:
    return _shape(
        *sizes, 49155, 4096, rope_theta=10000.0, tied_embeddings=True, embedding_multiplier=12.0,
        residual_multiplier=0.22, **settings,
    )  # fmt: skip


def _olmo2(*sizes: int) -> dict[str, Any]:
    return _shape(*sizes, 100352, 4096, norm_eps=1e-6, pre_norm=False, post_norm=True, qk_norm="all")


# Published sizes (params.json or config.json of each release), and sizes to train at home. The vocab_size of the latter
# is a default that the tokenizer of a run replaces. They tie the embeddings: at these sizes a second vocabulary matrix
# costs more than the layers it would replace.
PRESETS: dict[str, dict[str, Any]] = {
    "llama1-7b": LLAMA_1_7B,
    "llama1-13b": _LLAMA_1_13B,
    "llama1-30b": {
        **LLAMA_1_7B, "dim": 6656, "n_layers": 60, "n_heads": 52, "n_kv_heads": 52, "hidden_dim": 17920,
    },
    "llama1-65b": {
        **LLAMA_1_7B, "dim": 8192, "n_layers": 80, "n_heads": 64, "n_kv_heads": 64, "hidden_dim": 22016,
        "norm_eps": 1e-5,
    },
    "llama2-7b": {**LLAMA_1_7B, **_LLAMA_2},
    "llama2-13b": {**_LLAMA_1_13B, **_LLAMA_2},
    "llama2-70b": {
        **LLAMA_1_7B, **_LLAMA_2, "dim": 8192, "n_layers": 80, "n_heads": 64, "n_kv_heads": 8, "hidden_dim": 28672,
    },
    "llama3-8b": _LLAMA_3_8B,
    "llama3-70b": _LLAMA_3_70B,
    "llama3.1-8b": {**_LLAMA_3_8B, **LLAMA_3_1},
    "llama3.1-70b": {**_LLAMA_3_70B, **LLAMA_3_1},
    "llama3.1-405b": {
        **_LLAMA_3_8B, **LLAMA_3_1, "dim": 16384, "n_layers": 126, "n_heads": 128, "hidden_dim": 53248,
    },
    "llama3.2-1b": {**_LLAMA_3_8B, **LLAMA_3_2, "dim": 2048, "n_layers": 16, "hidden_dim": 8192},
    "llama3.2-3b": {**_LLAMA_3_8B, **LLAMA_3_2, "dim": 3072, "n_layers": 28, "n_heads": 24, "hidden_dim": 8192},
    "llama3.2-11b-vision": {
        **_LLAMA_3_8B, **_VISION, "n_layers": 40, "cross_attention_layers": tuple(range(3, 40, 5)),
    },
    "llama3.2-90b-vision": {
        **_LLAMA_3_70B, **_VISION, "n_layers": 100, "cross_attention_layers": tuple(range(3, 100, 5)),
    },
    "llama3.3-70b": {**_LLAMA_3_70B, **LLAMA_3_1},
    "smollm2-135m": {**_SMOLLM2, "dim": 576, "n_layers": 30, "n_heads": 9, "n_kv_heads": 3, "hidden_dim": 1536},
    "smollm2-360m": {**_SMOLLM2, "dim": 960, "n_layers": 32, "n_heads": 15, "n_kv_heads": 5, "hidden_dim": 2560},
    "smollm2-1.7b": {
        **_SMOLLM2, "dim": 2048, "n_layers": 24, "n_heads": 32, "n_kv_heads": 32, "hidden_dim": 8192,
        "rope_theta": 130000.0,
    },
    "gemma-2b": _gemma(2048, 16384, 18, 8, 1, 256000, 8192),
    "gemma-7b": _gemma(3072, 24576, 28, 16, 16, 256000, 8192),
    "gemma2-2b": _gemma2(2304, 9216, 26, 8, 4),
    "gemma2-9b": _gemma2(3584, 14336, 42, 16, 8),
    "gemma2-27b": _gemma2(4608, 36864, 46, 32, 16, head_dim=128, attention_multiplier=144**-0.5),
    "gemma3-1b": _gemma(
        1152, 6912, 26, 4, 1, 262144, 32768, windows=((512,) * 5 + (0,)) * 4 + (512,) * 2, rope_theta=1e6,
        local_rope_theta=10000.0, post_norm=True, qk_norm="head",
    ),
    "mistral-7b": _mistral(32000, 10000.0, windows=(4096,) * 32),
    "mistral-7b-v0.3": _mistral(32768, 1e6),
    "ministral-8b": _mistral(131072, 1e8, n_layers=36, hidden_dim=12288, windows=(32768,) * 36),
    "mixtral-8x7b": _mistral(32000, 1e6, n_experts=8, n_experts_per_token=2),
    "qwen2.5-0.5b": _qwen2_5(896, 4864, 24, 14, 2, 151936, tied=True),
    "qwen2.5-1.5b": _qwen2_5(1536, 8960, 28, 12, 2, 151936, tied=True),
    "qwen2.5-3b": _qwen2_5(2048, 11008, 36, 16, 2, 151936, tied=True),
    "qwen2.5-7b": _qwen2_5(3584, 18944, 28, 28, 4, 152064),
    "qwen2.5-14b": _qwen2_5(5120, 13824, 48, 40, 8, 152064),
    "qwen2.5-32b": _qwen2_5(5120, 27648, 64, 40, 8, 152064),
    "qwen2.5-72b": _qwen2_5(8192, 29568, 80, 64, 8, 152064),
    "qwen3-0.6b": _qwen3(1024, 3072, 28, 16, 8, tied=True),
    "qwen3-1.7b": _qwen3(2048, 6144, 28, 16, 8, tied=True),
    "qwen3-4b": _qwen3(2560, 9728, 36, 32, 8, tied=True),
    "qwen3-8b": _qwen3(4096, 12288, 36, 32, 8),
    "qwen3-14b": _qwen3(5120, 17408, 40, 40, 8),
    "qwen3-32b": _qwen3(5120, 25600, 64, 64, 8),
    "qwen3-30b-a3b": _qwen3(
        2048, 6144, 48, 32, 4, n_experts=128, n_experts_per_token=8, expert_hidden_dim=768,
    ),
    "phi3-mini": _shape(3072, 8192, 32, 32, 32, 32064, 4096, rope_theta=10000.0, windows=(2047,) * 32),
    "smollm3-3b": _shape(
        2048, 11008, 36, 16, 4, 128256, 65536, norm_eps=1e-6, rope_theta=5e6, tied_embeddings=True,
        unrotated_layers=tuple(range(3, 36, 4)),
    ),
    "granite3.0-2b": _granite(2048, 8192, 40, 32, 8, attention_multiplier=0.015625, logits_scaling=8.0),
    "granite3.0-8b": _granite(4096, 12800, 40, 32, 8, attention_multiplier=0.0078125, logits_scaling=16.0),
    "olmo2-7b": _olmo2(4096, 11008, 32, 32, 32),
    "olmo2-13b": _olmo2(5120, 13824, 40, 40, 40),
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
