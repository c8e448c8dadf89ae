"""The presets: published sizes of models, and sizes to train at home. Data only."""

from __future__ import annotations

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
