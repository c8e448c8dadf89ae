from __future__ import annotations

import json
from typing import Any

import pytest

from bpe.errors import InputError
from model import PRESETS, ModelConfig, Transformer

SMALL = {"dim": 32, "n_layers": 1, "n_heads": 4, "vocab_size": 100}


# The exact sizes of the published weights; model cards round them.
PUBLISHED = {
    "llama1-7b": 6_738_415_616,
    "llama1-13b": 13_015_864_320,
    "llama1-30b": 32_528_943_616,
    "llama1-65b": 65_285_660_672,
    "llama2-7b": 6_738_415_616,
    "llama2-13b": 13_015_864_320,
    "llama2-70b": 68_976_648_192,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3.1-8b": 8_030_261_248,
    "llama3.1-70b": 70_553_706_496,
    "llama3.1-405b": 405_853_388_800,
    "llama3.2-1b": 1_235_814_400,
    "llama3.2-3b": 3_212_749_824,
    "llama3.2-11b-vision": 10_670_220_835,
    "llama3.2-90b-vision": 88_593_355_323,
    "llama3.3-70b": 70_553_706_496,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
    "gemma-2b": 2_506_172_416,
    "gemma-7b": 8_537_680_896,
    "gemma2-2b": 2_614_341_888,
    "gemma2-9b": 9_241_705_984,
    "gemma2-27b": 27_227_128_320,
    "gemma3-1b": 999_885_952,
    "mistral-7b": 7_241_732_096,
    "mistral-7b-v0.3": 7_248_023_552,
    "ministral-8b": 8_019_808_256,
    "mixtral-8x7b": 46_702_792_704,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "qwen3-30b-a3b": 30_532_122_624,
    "phi3-mini": 3_821_079_552,
    "smollm3-3b": 3_075_098_624,
    "granite3.0-2b": 2_533_531_648,
    "granite3.0-8b": 8_170_848_256,
    "olmo2-7b": 7_298_617_344,
    "olmo2-13b": 13_716_198_400,
}


def test_presets_have_the_published_number_of_parameters() -> None:
    assert {name: ModelConfig.preset(name).n_parameters for name in PUBLISHED} == PUBLISHED
    assert set(PRESETS) - set(PUBLISHED) == {"nano", "micro", "mini", "small"}


@pytest.mark.parametrize("name", ["nano", "micro"])
@pytest.mark.parametrize("biases", [{}, {"qkv_bias": True}, {"qkv_bias": True, "wo_bias": True}])
def test_parameters_counted_by_part_are_those_of_the_modules(name: str, biases: dict[str, bool]) -> None:
    for tied in (False, True):
        config = ModelConfig.preset(name, vocab_size=300, tied_embeddings=tied, **biases)
        model = Transformer(config)
        found = dict.fromkeys(config.parameters(), 0)
        for key, parameter in model.named_parameters():
            part = next(
                part
                for part, marks in {
                    "embedding": ("tok_embeddings",), "norms": ("norm",), "attention": ("attention.",),
                    "feed_forward": ("feed_forward.",), "output": ("output",),
                }.items()
                if any(mark in key for mark in marks)
            )  # fmt: skip
            found[part] += parameter.numel()
        assert config.parameters() == found
        assert config.n_parameters == sum(found.values())


def test_small_presets_have_the_documented_sizes() -> None:
    sizes = {name: ModelConfig.preset(name).n_parameters / 1e6 for name in ("nano", "micro", "mini", "small")}
    assert 0.5 < sizes["nano"] < 1.5
    assert 2 < sizes["micro"] < 3
    assert 12 < sizes["mini"] < 20
    assert 100 < sizes["small"] < 140


def test_a_cache_of_llama3_8b_takes_128_kib_for_each_token_in_16_bits() -> None:
    # 2 (key, value) * 32 layers * 8 heads * 128 numbers * 2 bytes
    assert ModelConfig.preset("llama3-8b").kv_cache_bytes(1, 1, 2) == 131_072
    assert ModelConfig.preset("llama3-8b").kv_cache_bytes(4, 8192, 2) == 4 * 8192 * 131_072


def test_prefill_flops_are_the_sum_of_decode_flops_without_unused_logits() -> None:
    config = ModelConfig.preset("llama3-8b")
    logits = 2 * config.vocab_size * config.dim
    steps = sum(config.decode_flops(position) for position in range(100))
    assert config.prefill_flops(100) == steps - 99 * logits


def test_decode_flops_are_two_per_weight_plus_attention() -> None:
    config = ModelConfig(dim=8, n_layers=3, n_heads=2, n_kv_heads=1, hidden_dim=20, vocab_size=50)
    # wq, wo 8*8; wk, wv 8*4; w1, w2, w3 8*20; output 8*50
    matrices = 3 * (2 * 64 + 2 * 32 + 3 * 160) + 400
    # 10 positions, 3 layers, 2 heads: a dot product of 4 and a weighted sum of 4 each
    assert config.decode_flops(9) == 2 * matrices + 3 * 2 * 10 * 2 * (4 + 4)


FLOP_CASES: dict[str, dict[str, Any]] = {
    "llama": {},
    "wide heads, biases": {"head_dim": 24, "qkv_bias": True, "wo_bias": True, "ffn_bias": True},
    "one window": {"windows": (5, 5, 5, 5)},
    "windows of some layers": {"windows": (7, 0, 3, 0), "unrotated_layers": (1,)},
    "a window of one token": {"windows": (0, 1, 0, 1)},
    "a window beyond the text": {"windows": (500, 0, 500, 0)},
    "experts": {"n_experts": 6, "n_experts_per_token": 2},
    "narrow experts": {"n_experts": 8, "n_experts_per_token": 3, "expert_hidden_dim": 10},
    "experts, dense layers, windows": {
        "n_experts": 5, "n_experts_per_token": 4, "expert_hidden_dim": 12, "dense_layers": (0, 2),
        "windows": (4, 4, 0, 0),
    },
}  # fmt: skip


def multiply_adds(config: ModelConfig, position: int) -> int:
    """Return the multiply-adds of the matrices and of the attention that one token needs, without its logits."""
    count = 0
    for layer in range(config.n_layers):
        for rows in (config.n_heads, config.n_kv_heads, config.n_kv_heads):  # wq, wk, wv
            count += rows * config.head_dim * config.dim
        count += config.dim * config.n_heads * config.head_dim  # wo
        window = config.windows[layer] if config.windows else 0
        for earlier in range(position + 1):
            if not window or position - earlier < window:
                count += config.n_heads * (config.head_dim + config.head_dim)  # query times key, share times value
        if config.n_experts and layer not in config.dense_layers:
            count += config.n_experts * config.dim  # the router
            for _ in range(config.n_experts_per_token):
                for _ in ("w1", "w2", "w3"):
                    count += config.dim * (config.expert_hidden_dim or config.hidden_dim)
        else:
            for _ in ("w1", "w2", "w3"):
                count += config.dim * config.hidden_dim
    return count


@pytest.mark.parametrize("case", FLOP_CASES)
@pytest.mark.parametrize("length", [1, 4, 11])
def test_flops_are_counted_layer_by_layer_with_windows_and_chosen_experts(case: str, length: int) -> None:
    config = ModelConfig(dim=16, n_layers=4, n_heads=4, n_kv_heads=2, hidden_dim=20, vocab_size=50, **FLOP_CASES[case])
    tokens = [multiply_adds(config, position) for position in range(length)]
    logits = 50 * 16
    assert [config.decode_flops(position) for position in range(length)] == [2 * (each + logits) for each in tokens]
    assert config.prefill_flops(length) == 2 * (sum(tokens) + logits)
    assert config.training_flops(length) == 3 * 2 * (sum(tokens) + length * logits)


@pytest.mark.parametrize("name", PRESETS)
def test_params_round_trip(name: str) -> None:
    config = ModelConfig.preset(name)
    assert ModelConfig.from_params(json.loads(json.dumps(config.to_params()))) == config


@pytest.mark.parametrize("hidden", [1, 7, 100, 1365, 1366, 4095, 14336, 99_991])
def test_any_hidden_size_survives_metas_rule(hidden: int) -> None:
    config = ModelConfig(dim=512, n_layers=1, n_heads=8, vocab_size=10, hidden_dim=hidden)
    params = config.to_params()
    del params["hidden_dim"]
    assert ModelConfig.from_params(params) == config


def test_metas_own_params_are_read() -> None:
    meta = {"dim": 8192, "ffn_dim_multiplier": 1.3, "multiple_of": 4096, "n_heads": 64, "n_kv_heads": 8, "n_layers": 80,
            "norm_eps": 1e-05, "rope_theta": 500000.0, "use_scaled_rope": True, "vocab_size": 128256}  # fmt: skip
    assert ModelConfig.from_params(meta) == ModelConfig.preset("llama3.1-70b")


# As published, plus vocab_size, which the releases leave to the tokenizer.
@pytest.mark.parametrize(
    ("name", "meta"),
    [
        ("llama1-7b", {"dim": 4096, "n_heads": 32, "n_layers": 32, "norm_eps": 1e-06}),
        ("llama1-30b", {"dim": 6656, "n_heads": 52, "n_layers": 60, "norm_eps": 1e-06}),
        ("llama1-65b", {"dim": 8192, "n_heads": 64, "n_layers": 80, "norm_eps": 1e-05}),
        ("llama2-7b", {"dim": 4096, "n_heads": 32, "n_layers": 32, "norm_eps": 1e-05}),
        ("llama2-13b", {"dim": 5120, "n_heads": 40, "n_layers": 40, "norm_eps": 1e-05}),
        (
            "llama2-70b",
            {"dim": 8192, "n_heads": 64, "n_kv_heads": 8, "n_layers": 80, "norm_eps": 1e-05, "multiple_of": 4096,
             "ffn_dim_multiplier": 1.3},
        ),
    ],
)  # fmt: skip
def test_params_of_llama_1_and_2_get_their_rope_theta_and_context(name: str, meta: dict[str, Any]) -> None:
    assert ModelConfig.from_params({"multiple_of": 256, "vocab_size": 32000, **meta}) == ModelConfig.preset(name)


def test_fields_missing_from_metas_llama_3_2_params_come_from_the_preset() -> None:
    meta = {"dim": 2048, "ffn_dim_multiplier": 1.5, "multiple_of": 256, "n_heads": 32, "n_kv_heads": 8, "n_layers": 16,
            "norm_eps": 1e-05, "rope_theta": 500000.0, "use_scaled_rope": True, "vocab_size": 128256}  # fmt: skip
    assert ModelConfig.from_params(meta) == ModelConfig.preset("llama3.2-1b")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 30}, r"dim \(30\) is not divisible by n_heads \(4\)"),
        ({"n_kv_heads": 3}, r"n_heads \(4\) is not divisible by n_kv_heads \(3\)"),
        ({"dim": 12}, "head_dim is 3"),
        ({"head_dim": 5}, "head_dim is 5"),
        ({"n_layers": 0}, "n_layers is 0"),
        ({"n_layers": 10**9}, "n_layers is 1000000000; it must be at most 1024"),
        ({"vocab_size": -1}, "vocab_size is -1"),
        ({"hidden_dim": -5}, "hidden_dim is -5"),
        ({"norm_eps": 0.0}, "norm_eps is 0.0"),
        ({"rope_theta": float("nan")}, "rope_theta is nan"),
        ({"max_seq_len": 0}, "max_seq_len is 0"),
        ({"rope_high_freq_factor": 1.0}, "must exceed"),
        ({"dim": 32.0}, "dim is 32.0; expected a whole number"),
        ({"dim": True}, "dim is True"),
        ({"norm_eps": "small"}, "norm_eps is 'small'; expected a number"),
        ({"tied_embeddings": 1}, "tied_embeddings is 1; expected true or false"),
    ],
)
def test_invalid_fields_raise_with_their_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModelConfig(**{**SMALL, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization_args": {"scheme": "int4"}}, "unknown 'quantization_args'"),
        ({"n_heads": None}, "missing n_heads"),
        ({"multiple_of": 0}, "multiple_of is 0"),
        ({"ffn_dim_multiplier": -1}, "ffn_dim_multiplier is -1"),
        ({"dim": "wide"}, "dim is 'wide'"),
        (
            {"hidden_dim": 100, "multiple_of": 64},
            "hidden_dim is 100, but multiple_of and ffn_dim_multiplier make it 128",
        ),
    ],
)
def test_invalid_params_raise_with_the_name_of_the_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModelConfig.from_params({**SMALL, **changes})


def test_an_unknown_preset_raises_with_the_known_presets() -> None:
    with pytest.raises(InputError, match=r"'llama9'.*llama3-8b"):
        ModelConfig.preset("llama9")


def test_an_unknown_override_raises_with_its_name() -> None:
    with pytest.raises(TypeError, match=r"ModelConfig.preset\(\) .* keyword argument 'n_head'; did you mean n_heads\?"):
        ModelConfig.preset("micro", n_head=4)  # type: ignore[call-arg]
