"""The PyTorch models that training is compared with: a plain one, and transformers' Llama, with our weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_LAYER = (*(f"attention.{w}" for w in ("wq", "wk", "wv", "wo")), *(f"feed_forward.{w}" for w in ("w1", "w2", "w3")),
          "attention_norm", "ffn_norm")  # fmt: skip


def plain_model(config: Any) -> Any:
    """Return a straightforward PyTorch model, called with inputs and targets, both `[batch, time]`, for its mean loss.

    It consists of modules, scaled_dot_product_attention, and cross_entropy over all logits at once.
    """
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn

    width = config.head_dim
    angles = torch.outer(torch.arange(config.max_seq_len), config.rope_theta ** (-torch.arange(0, width, 2) / width))
    cosine, sine = angles.cos()[:, None], angles.sin()[:, None]  # [t, 1, d / 2]

    def turn(x: Tensor) -> Tensor:
        cos, sin = cosine[: x.shape[1]].to(x.dtype), sine[: x.shape[1]].to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(config.dim, (config.n_heads + 2 * config.n_kv_heads) * width, bias=False)
            self.out = nn.Linear(config.n_heads * width, config.dim, bias=False)
            self.gate = nn.Linear(config.dim, config.hidden_dim, bias=False)
            self.up = nn.Linear(config.dim, config.hidden_dim, bias=False)
            self.down = nn.Linear(config.hidden_dim, config.dim, bias=False)
            self.norm1 = nn.RMSNorm(config.dim, config.norm_eps)
            self.norm2 = nn.RMSNorm(config.dim, config.norm_eps)

        def forward(self, x: Tensor) -> Tensor:
            heads = [config.n_heads, config.n_kv_heads, config.n_kv_heads]
            q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (-1, width)).split(heads, dim=2)
            q, k, v = turn(q).transpose(1, 2), turn(k).transpose(1, 2), v.transpose(1, 2)
            grouped = config.n_heads != config.n_kv_heads
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
            x = x + self.out(y.transpose(1, 2).flatten(2))
            h = self.norm2(x)
            return x + self.down(F.silu(self.gate(h)) * self.up(h))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(config.vocab_size, config.dim)
            self.blocks = nn.ModuleList(Block() for _ in range(config.n_layers))
            self.norm = nn.RMSNorm(config.dim, config.norm_eps)
            self.head = nn.Linear(config.dim, config.vocab_size, bias=False)
            if config.tied_embeddings:
                self.head.weight = self.embedding.weight

        def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
            x = self.embedding(inputs)
            for block in self.blocks:
                x = block(x)
            return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1).float(), targets.flatten())

    return Model()


def plain(config: Any, weights: Mapping[str, Any]) -> tuple[Any, Callable[[Any, Any], Any]]:
    """Return the plain PyTorch model with the given weights; it is also its own loss function."""
    import torch
    from torch import Tensor

    from model.checkpoint.names import halved

    def of_layer(layer: int) -> dict[str, Tensor]:
        w = {name: weights[f"layers.{layer}.{name}.weight"] for name in _LAYER}
        rotated = [halved(w[f"attention.{name}"], config) for name in ("wq", "wk")]
        named = {"qkv": torch.cat([*rotated, w["attention.wv"]]), "out": w["attention.wo"]}
        named |= {"gate": w["feed_forward.w1"], "up": w["feed_forward.w3"], "down": w["feed_forward.w2"]}
        return named | {"norm1": w["attention_norm"], "norm2": w["ffn_norm"]}

    model = plain_model(config)
    state = {f"blocks.{i}.{name}.weight": w for i in range(config.n_layers) for name, w in of_layer(i).items()}
    state |= {"embedding.weight": weights["tok_embeddings.weight"], "norm.weight": weights["norm.weight"]}
    model.load_state_dict(state | {"head.weight": weights["output.weight"]})
    return model, model


def transformers(config: Any, weights: Mapping[str, Any]) -> tuple[Any, Callable[[Any, Any], Any]]:
    """Return Hugging Face's Llama with scaled_dot_product_attention, in the dtype of the weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from model.checkpoint.huggingface import NAMES, config_json
    from model.checkpoint.names import halved

    shape = config_json(config, weights["tok_embeddings.weight"].dtype) | {"use_cache": False}
    model = LlamaForCausalLM._from_config(LlamaConfig(**shape), attn_implementation="sdpa")
    rotated = ("attention.wq.weight", "attention.wk.weight")
    model.load_state_dict({
        NAMES.from_meta(name): halved(weight, config) if name.endswith(rotated) else weight
        for name, weight in weights.items()
    })  # fmt: skip

    def loss(inputs: Any, targets: Any) -> Any:
        return model(input_ids=inputs, labels=targets, shift_labels=targets.contiguous()).loss

    return model.train(), loss
