"""The sizes in the config.json of published relatives of Llama, by the name of our preset."""

from __future__ import annotations

from typing import Any


def _shape(
    dim: int, hidden: int, layers: int, heads: int, kv_heads: int, vocab: int, context: int, **keys: Any
) -> dict[str, Any]:
    return {
        "hidden_size": dim, "intermediate_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "vocab_size": vocab, "max_position_embeddings": context, **keys,
    }  # fmt: skip


def _gemma(*sizes: int, **keys: Any) -> dict[str, Any]:
    shape = {"model_type": "gemma", "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "head_dim": 256}
    return _shape(*sizes, **{**shape, **keys})


def _gemma2(*sizes: int, scalar: int = 256, **keys: Any) -> dict[str, Any]:
    soft = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    shape = {"model_type": "gemma2", "sliding_window": 4096, "query_pre_attn_scalar": scalar}
    return _gemma(*sizes, 256000, 8192, **shape, **soft, **keys)


def _qwen2(*sizes: int, tied: bool = False) -> dict[str, Any]:
    return _shape(
        *sizes, 32768, model_type="qwen2", rms_norm_eps=1e-6, rope_theta=1e6, tie_word_embeddings=tied,
        use_sliding_window=False,
    )  # fmt: skip


def _qwen3(*sizes: int, tied: bool = False, **keys: Any) -> dict[str, Any]:
    shape = {"rms_norm_eps": 1e-6, "rope_theta": 1e6, "head_dim": 128, "tie_word_embeddings": tied}
    return _shape(*sizes, 151936, 40960, **{"model_type": "qwen3", **shape, **keys})


def _mistral(vocab: int, theta: float, window: int | None, **keys: Any) -> dict[str, Any]:
    shape = {"rms_norm_eps": 1e-5, "rope_theta": theta, "sliding_window": window, "tie_word_embeddings": False}
    return _shape(4096, 14336, 32, 32, 8, vocab, 32768, **{"model_type": "mistral", **shape, **keys})


def _granite(*sizes: int, attention: float, scaling: float) -> dict[str, Any]:
    return _shape(
        *sizes, 49155, 4096, model_type="granite", rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=True,
        embedding_multiplier=12.0, residual_multiplier=0.22, attention_multiplier=attention, logits_scaling=scaling,
    )  # fmt: skip


def _olmo2(*sizes: int) -> dict[str, Any]:
    return _shape(
        *sizes, 100352, 4096, model_type="olmo2", rms_norm_eps=1e-6, rope_theta=500000.0, tie_word_embeddings=False
    )


CONFIGS: dict[str, dict[str, Any]] = {
    "gemma-2b": _gemma(2048, 16384, 18, 8, 1, 256000, 8192, hidden_act="gelu_pytorch_tanh"),
    "gemma-7b": _gemma(3072, 24576, 28, 16, 16, 256000, 8192, hidden_act="gelu_pytorch_tanh"),
    "gemma2-2b": _gemma2(2304, 9216, 26, 8, 4),
    "gemma2-9b": _gemma2(3584, 14336, 42, 16, 8),
    "gemma2-27b": _gemma2(4608, 36864, 46, 32, 16, scalar=144, head_dim=128),
    "gemma3-1b": _gemma(
        1152, 6912, 26, 4, 1, 262144, 32768, model_type="gemma3_text", sliding_window=512, sliding_window_pattern=6,
        query_pre_attn_scalar=256, rope_theta=1e6, rope_local_base_freq=10000.0,
    ),
    "mistral-7b": _mistral(32000, 10000.0, 4096),
    "mistral-7b-v0.3": _mistral(32768, 1e6, None),
    "ministral-8b": _mistral(
        131072, 1e8, 32768, intermediate_size=12288, num_hidden_layers=36, head_dim=128,
    ),
    "mixtral-8x7b": _mistral(32000, 1e6, None, model_type="mixtral", num_local_experts=8, num_experts_per_tok=2),
    "qwen2.5-0.5b": _qwen2(896, 4864, 24, 14, 2, 151936, tied=True),
    "qwen2.5-1.5b": _qwen2(1536, 8960, 28, 12, 2, 151936, tied=True),
    "qwen2.5-3b": _qwen2(2048, 11008, 36, 16, 2, 151936, tied=True),
    "qwen2.5-7b": _qwen2(3584, 18944, 28, 28, 4, 152064),
    "qwen2.5-14b": _qwen2(5120, 13824, 48, 40, 8, 152064),
    "qwen2.5-32b": _qwen2(5120, 27648, 64, 40, 8, 152064),
    "qwen2.5-72b": _qwen2(8192, 29568, 80, 64, 8, 152064),
    "qwen3-0.6b": _qwen3(1024, 3072, 28, 16, 8, tied=True),
    "qwen3-1.7b": _qwen3(2048, 6144, 28, 16, 8, tied=True),
    "qwen3-4b": _qwen3(2560, 9728, 36, 32, 8, tied=True),
    "qwen3-8b": _qwen3(4096, 12288, 36, 32, 8),
    "qwen3-14b": _qwen3(5120, 17408, 40, 40, 8),
    "qwen3-32b": _qwen3(5120, 25600, 64, 64, 8),
    "qwen3-30b-a3b": _qwen3(
        2048, 6144, 48, 32, 4, model_type="qwen3_moe", num_experts=128, num_experts_per_tok=8,
        moe_intermediate_size=768, norm_topk_prob=True,
    ),
    "phi3-mini": _shape(
        3072, 8192, 32, 32, 32, 32064, 4096, model_type="phi3", rms_norm_eps=1e-5, rope_theta=10000.0,
        tie_word_embeddings=False, sliding_window=2047, original_max_position_embeddings=4096,
    ),
    "smollm3-3b": _shape(
        2048, 11008, 36, 16, 4, 128256, 65536, model_type="smollm3", rms_norm_eps=1e-6, rope_theta=5e6,
        tie_word_embeddings=True, use_sliding_window=False,
    ),
    "granite3.0-2b": _granite(2048, 8192, 40, 32, 8, attention=0.015625, scaling=8.0),
    "granite3.0-8b": _granite(4096, 12800, 40, 32, 8, attention=0.0078125, scaling=16.0),
    "olmo2-7b": _olmo2(4096, 11008, 32, 32, 32),
    "olmo2-13b": _olmo2(5120, 13824, 40, 40, 40),
}  # fmt: skip
