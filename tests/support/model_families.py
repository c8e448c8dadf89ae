"""Tiny models of each family as transformers makes them: with random weights, in the form that their files have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

SHAPE = {
    "vocab_size": 300, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": None,
    "eos_token_id": None,
}  # fmt: skip
_HEAD = {"head_dim": 16}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True, **_HEAD}),
    "llama, mlp bias, gelu": ("llama", {"mlp_bias": True, "hidden_act": "gelu", "tie_word_embeddings": True}),
    "llama, linear": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "llama, dynamic": (
        "llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}, "max_position_embeddings": 24},
    ),
    "llama, yarn": (
        "llama",
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}},
    ),
    "llama, yarn, all keys": (
        "llama",
        {
            "rope_scaling": {
                "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "beta_fast": 16.0,
                "beta_slow": 2.0, "mscale": 0.8, "mscale_all_dim": 0.5, "truncate": False,
            },
        },
    ),
    "llama, llama3": (
        "llama",
        {
            "rope_scaling": {
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        },
    ),
    "mistral, window": ("mistral", {"sliding_window": 11}),
    "mistral": ("mistral", {"sliding_window": None, **_HEAD}),
    "ministral": (
        "ministral",
        {"sliding_window": 9, "layer_types": ["sliding_attention", "full_attention"] * 2, **_HEAD},
    ),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2, windows": ("qwen2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2}),
    "qwen3": ("qwen3", {**_HEAD}),
    "qwen3, biases": ("qwen3", {**_HEAD, "attention_bias": True, "tie_word_embeddings": True}),
    "smollm3": ("smollm3", {}),
    "smollm3, windows": ("smollm3", {"use_sliding_window": True, "sliding_window": 6, "no_rope_layers": [1, 0, 0, 1]}),
    "gemma": ("gemma", {"num_key_value_heads": 1, **_HEAD}),
    "gemma2": ("gemma2", {"sliding_window": 10, "query_pre_attn_scalar": 24, **_HEAD}),
    "gemma3": ("gemma3_text", {"sliding_window": 8, "sliding_window_pattern": 3, **_HEAD}),
    "gemma3, scaled": (
        "gemma3_text",
        {
            "sliding_window": 8, "head_dim": 24, "final_logit_softcapping": 20.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
    ),
    "phi3": ("phi3", {"sliding_window": 13}),
    "phi3, longrope, partial": (
        "phi3",
        {
            "partial_rotary_factor": 0.5, "original_max_position_embeddings": 24,
            "rope_scaling": {
                "rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2], "long_factor": [1.5, 2.0, 3.0],
            },
        },
    ),
    "granite": (
        "granite",
        {
            "embedding_multiplier": 12.0, "residual_multiplier": 0.22, "attention_multiplier": 0.2,
            "logits_scaling": 8.0, "attention_bias": True, "mlp_bias": True,
        },
    ),
    "olmo2": ("olmo2", {}),
    "olmo2, biases": ("olmo2", {"attention_bias": True}),
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3 moe": (
        "qwen3_moe",
        {
            "num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 32, "norm_topk_prob": True,
            "mlp_only_layers": [1], **_HEAD,
        },
    ),
    "qwen3 moe, step": (
        "qwen3_moe",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 2, **_HEAD},
    ),
}  # fmt: skip
"""The model type and the keys of config.json, beside those of `SHAPE`, of each model by a name."""


def config_of(name: str, **changes: Any) -> Any:
    """Return the configuration of a model as transformers has it, with some of its keys changed."""
    kind, keys = FAMILIES[name]
    return transformers.AutoConfig.for_model(kind, **{**SHAPE, **keys, **changes})


def make(name: str, seed: int = 1, **changes: Any) -> Any:
    """Return a model of transformers with random weights in float32, biases and norms included."""
    config = config_of(name, **changes)
    config._attn_implementation = "eager"  # soft caps are ignored by the others
    torch.manual_seed(seed)
    return randomize(transformers.AutoModelForCausalLM.from_config(config).eval())


def randomize(model: Any) -> Any:
    """Return a model after its weights were made random, biases and norms included."""
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif "embed" in parameter_name:
                parameter.normal_(std=0.5)
            else:
                parameter.normal_(std=0.8 / parameter.shape[-1] ** 0.5)
    return model


def write(name: str, path: Path, seed: int = 1, **changes: Any) -> Any:
    """Write a model as transformers does, and return it."""
    model = make(name, seed, **changes)
    model.save_pretrained(path)
    return model
