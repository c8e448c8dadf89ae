"""Generated text against Hugging Face's transformers with the same weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from model import Generation, ModelConfig, Sampling, Transformer, generate_ids

MakeModel = Callable[[ModelConfig], Transformer]

BASE = ModelConfig(
    dim=64, n_layers=3, n_heads=4, n_kv_heads=2, hidden_dim=96, vocab_size=300, max_seq_len=160, norm_eps=1e-5,
    rope_theta=10_000.0,
)  # fmt: skip
CONFIGS = {
    "grouped queries": BASE,
    "one key-value head, tied": dataclasses.replace(BASE, n_kv_heads=1, tied_embeddings=True),
    "a head for each query, of another size": dataclasses.replace(BASE, n_kv_heads=4, head_dim=24),
    "biases": dataclasses.replace(BASE, qkv_bias=True, wo_bias=True),
    "scaled rotations": dataclasses.replace(
        BASE, rope_scaling="llama3", rope_scaling_factor=8.0, rope_low_freq_factor=1.0, rope_high_freq_factor=4.0,
        rope_original_length=32,
    ),
}  # fmt: skip


def half_split(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Reorder rows of queries and keys from neighbouring pairs to all first halves before all second halves."""
    heads = weight.unflatten(0, (-1, head_dim // 2, 2))
    return heads.transpose(1, 2).flatten(0, 2)


def counterpart(model: Transformer) -> Any:
    """Return a LlamaForCausalLM with the weights of a model."""
    config, rope = model.config, {"rope_theta": model.config.rope_theta, "rope_type": "default"}
    if config.rope_scaling == "llama3":
        rope |= {
            "rope_type": "llama3",
            "factor": config.rope_scaling_factor,
            "low_freq_factor": config.rope_low_freq_factor,
            "high_freq_factor": config.rope_high_freq_factor,
            "original_max_position_embeddings": config.rope_original_length,
        }
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.dim,
            intermediate_size=config.hidden_dim,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            max_position_embeddings=config.max_seq_len,
            rms_norm_eps=config.norm_eps,
            rope_parameters=rope,
            attention_bias=config.qkv_bias,
            tie_word_embeddings=config.tied_embeddings,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    names = {
        "tok_embeddings": "model.embed_tokens", "output": "lm_head", "norm": "model.norm", "layers": "model.layers",
        "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attention": "self_attn",
        "feed_forward": "mlp", "wq": "q_proj", "wk": "k_proj", "wv": "v_proj", "wo": "o_proj", "w1": "gate_proj",
        "w2": "down_proj", "w3": "up_proj",
    }  # fmt: skip
    weights = {}
    for name, weight in model.state_dict().items():
        turned = half_split(weight, config.head_dim) if ".wq." in name or ".wk." in name else weight
        weights[".".join(names.get(part, part) for part in name.split("."))] = turned
    theirs.load_state_dict(weights)
    return theirs.eval()


@pytest.fixture(params=CONFIGS)
def ours(request: pytest.FixtureRequest, make_model: MakeModel) -> Transformer:
    return make_model(CONFIGS[request.param])


@pytest.mark.slow
@torch.no_grad()
def test_64_greedy_tokens_are_the_same(ours: Transformer) -> None:
    theirs = counterpart(ours)
    ids = torch.randint(1, 300, (1, 20), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)
    expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False)
    written = list(generate_ids(ours, ids[0].tolist(), max_tokens=64, temperature=0))
    assert written == expected[0, 20:].tolist()
    assert len(written) == 64


@torch.no_grad()
@pytest.mark.parametrize("penalty", [1.0, 1.2])
def test_a_ragged_batch_generates_the_same_text(ours: Transformer, penalty: float) -> None:
    theirs = counterpart(ours)
    generator = torch.Generator().manual_seed(2)
    prompts = [torch.randint(1, 300, (length,), generator=generator).tolist() for length in (17, 3, 9, 1)]
    # Padding has id 0. The penalty must not apply to it, in neither implementation.
    ids = torch.tensor([[0] * (17 - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (17 - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    bias = {(0,): -float("inf")}
    expected = theirs.generate(
        ids, attention_mask=mask, max_new_tokens=64, do_sample=False, repetition_penalty=penalty, sequence_bias=bias
    )
    sampling = Sampling(temperature=0, repetition_penalty=penalty, logit_bias={0: -float("inf")})
    written: list[list[int]] = [[] for _ in prompts]
    for tokens in Generation(ours, prompts, max_tokens=64, sampling=sampling):
        for token in tokens:
            written[token.row].append(token.id)
    assert written == expected[:, 17:].tolist()


@torch.no_grad()
def test_bfloat16_is_as_close_to_float64_as_transformers(ours: Transformer) -> None:
    ours = ours.to(torch.bfloat16)
    theirs = counterpart(ours).to(torch.bfloat16)
    ids = torch.randint(1, 300, (8, 100), generator=torch.Generator().manual_seed(3))
    exact = counterpart(ours).double()(ids).logits
    our_error, their_error = (
        (logits.double() - exact).square().mean().sqrt() for logits in (ours(ids), theirs(ids).logits)
    )
    print(f"RMS error in bfloat16 {our_error:.4f}, of transformers {their_error:.4f}, of logits {exact.std():.2f}")
    assert our_error <= 1.5 * their_error
