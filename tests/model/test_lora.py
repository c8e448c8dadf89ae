"""LoRA: adapters in a model, and adapters on disk, compared with PEFT."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bpe import Tokenizer
from bpe.errors import InputError
from model import ModelConfig, Transformer, convert, load, save
from model.checkpoint import adapter, format_of, open_checkpoint
from model.checkpoint.adapter import write_adapter
from model.checkpoint.assemble import fingerprint
from model.lora import TARGETS, Adapter, LoraConfig, LoraLinear, adapter_of, add_lora, merge_lora, without_lora
from support.references import BYTE_RANKS

MakeModel = Callable[[ModelConfig], Transformer]
SPECIAL = {"<|begin_of_text|>": 256, "<|end_of_text|>": 257, "<|eot_id|>": 258}
IDS = torch.randint(259, (2, 40), generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["tied", "untied with biases and wide heads"])
def base(request: Any, config: ModelConfig, make_model: MakeModel) -> Transformer:
    if request.param != "tied":
        config = dataclasses.replace(config, tied_embeddings=False, qkv_bias=True, wo_bias=True, head_dim=12)
    return make_model(config)


@pytest.fixture
def base_directory(base: Transformer, tmp_path: Path) -> Path:
    """Save the base in the format of transformers."""
    tokenizer = tmp_path / "tokenizer.json"
    Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=SPECIAL).save(tokenizer)
    save(tmp_path / "base", base, tokenizer, format="huggingface")
    return tmp_path / "base"


@pytest.fixture(scope="module")
def peft() -> Iterator[Any]:
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield pytest.importorskip("peft")


def learned(model: Transformer, config: LoraConfig) -> Adapter:
    """Add an adapter whose B matrices are not zero, and return it."""
    add_lora(model, config, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for _, b in adapter_of(model).values():
            b.copy_(0.2 * torch.randn(b.shape, generator=generator))
    return adapter_of(model)


def saved(model: Transformer, base_directory: Path, config: LoraConfig) -> Path:
    """Add an adapter to `model`; return the directory where it is saved."""
    directory = base_directory.parent / "adapter"
    directory.mkdir()
    matrices = learned(model, config)
    checkpoint = open_checkpoint(base_directory)
    write_adapter(directory, checkpoint, str(base_directory), config, matrices, fingerprint(checkpoint))
    return directory


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        output = model(IDS)
    return output if isinstance(output, Tensor) else output.logits


def test_a_new_adapter_changes_neither_logits_nor_names(base: Transformer) -> None:
    names, before = set(base.state_dict()), logits(base)
    add_lora(base, LoraConfig(4))
    assert torch.equal(logits(base), before)
    added = set(base.state_dict()) - names
    assert names < set(base.state_dict())
    assert len(added) == 2 * len(TARGETS) * base.config.n_layers
    assert {name.rpartition(".")[2] for name in added} == {"lora_a", "lora_b"}
    trained = {name for name, parameter in base.named_parameters() if parameter.requires_grad}
    assert trained == added


def test_the_output_matches_the_definition_in_float64(base: Transformer) -> None:
    config = LoraConfig(4, alpha=12.0)
    learned(base, config)
    layer = base.layers[1].feed_forward.w2
    assert isinstance(layer, LoraLinear)
    x = torch.randn(3, 5, layer.in_features)
    weight, a, b = layer.weight.double(), layer.lora_a.double(), layer.lora_b.double()
    expected = x.double() @ weight.T + 3.0 * (x.double() @ a.T) @ b.T
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-5)


def test_only_the_targets_are_adapted(model: Transformer) -> None:
    add_lora(model, LoraConfig(2, targets=("wq", "w2")))
    assert {name.rpartition(".")[2] for name in adapter_of(model)} == {"wq", "w2"}
    assert len(adapter_of(model)) == 2 * model.config.n_layers


def test_a_model_with_an_adapter_is_refused(model: Transformer) -> None:
    add_lora(model, LoraConfig(2, targets=("wq",)))
    with pytest.raises(
        InputError, match="layers.0.attention.wq is a LoraLinear; LoRA adapts plain nn.Linear layers only"
    ):
        add_lora(model, LoraConfig(2))


def test_gradients_reach_only_the_lora_matrices(model: Transformer) -> None:
    learned(model, LoraConfig(2))
    model(IDS).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == ("lora_" in name), name


def test_merging_keeps_the_logits_and_the_names_of_a_plain_model(base: Transformer) -> None:
    names = [*base.state_dict()]
    learned(base, LoraConfig(4))
    before = logits(base)
    merge_lora(base)
    assert [*base.state_dict()] == names
    torch.testing.assert_close(logits(base), before, rtol=1e-4, atol=1e-4)


def test_without_lora_the_model_is_its_base_even_after_an_error(base: Transformer) -> None:
    before = logits(base)
    learned(base, LoraConfig(4))
    adapted = logits(base)
    with without_lora(base):
        assert torch.equal(logits(base), before)
    with pytest.raises(KeyError), without_lora(base):
        raise KeyError
    assert torch.equal(logits(base), adapted)
    assert not torch.allclose(adapted, before, atol=0.1)


def test_dropout_applies_in_training_to_the_inputs_of_the_adapter(model: Transformer) -> None:
    learned(model, LoraConfig(4, dropout=0.5))
    still = logits(model.eval())
    assert torch.equal(logits(model), still)
    layer = model.layers[0].attention.wq.train()
    x = torch.ones(1, 1, layer.in_features)
    torch.manual_seed(0)
    kept = torch.nn.functional.dropout(x, 0.5)
    torch.manual_seed(0)
    expected = x @ layer.weight.T + 2.0 * kept @ layer.lora_a.T @ layer.lora_b.T
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "the LoRA rank is 0; it must be at least 1"),
        ({"rank": 4, "alpha": 0.0}, "the LoRA alpha is 0.0; it must be positive"),
        ({"rank": 4, "alpha": float("nan")}, "it must be positive"),
        (
            {"rank": 4, "targets": ("wq", "q_proj")},
            "LoRA cannot adapt q_proj; the targets are wq, wk, wv, wo, w1, w2, w3",
        ),
        ({"rank": 4, "targets": ()}, "LoRA has no targets; choose from wq"),
        ({"rank": 4, "dropout": 1.0}, "the LoRA dropout is 1.0; it must be a share, from 0 to below 1"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LoraConfig(**settings)


# --- on disk ---


def test_a_saved_adapter_opens_in_peft_and_here_with_the_same_logits(
    base: Transformer, base_directory: Path, peft: Any
) -> None:
    import transformers

    directory = saved(base, base_directory, LoraConfig(4, alpha=6.0))
    expected = logits(base)
    plain = transformers.AutoModelForCausalLM.from_pretrained(base_directory, attn_implementation="eager")
    theirs = peft.PeftModel.from_pretrained(plain, directory)
    torch.testing.assert_close(logits(theirs), expected, rtol=0, atol=1e-4)
    found = {name for name, _ in theirs.named_parameters() if "lora_" in name}
    assert len(found) == 2 * len(TARGETS) * base.config.n_layers

    loaded, tokenizer = load(directory)
    torch.testing.assert_close(logits(loaded), expected, rtol=0, atol=1e-4)
    assert tokenizer.special_tokens == SPECIAL
    assert format_of(directory) == format_of(directory / adapter.WEIGHTS) == "adapter"


def test_the_tokenizer_of_an_adapter_takes_precedence_over_that_of_a_gguf(model: Transformer, tmp_path: Path) -> None:
    Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=SPECIAL).save(tmp_path / "old.json")
    save(tmp_path / "base.gguf", model, tmp_path / "old.json")
    directory = saved(model, tmp_path / "base.gguf", LoraConfig(4))
    (directory / "tokenizer.json").unlink()
    assert load(directory)[1].special_tokens == SPECIAL
    renamed = {"<|start|>": 256, "<|end_of_text|>": 257}
    Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=renamed).save(
        directory / "tokenizer.json"
    )
    assert load(directory)[1].special_tokens == renamed


@pytest.mark.parametrize("rank_stabilized", [False, True])
def test_an_adapter_by_peft_opens_here_with_the_same_logits(
    base: Transformer, base_directory: Path, peft: Any, rank_stabilized: bool
) -> None:
    import transformers

    plain = transformers.AutoModelForCausalLM.from_pretrained(base_directory, attn_implementation="eager")
    settings = peft.LoraConfig(
        r=4, lora_alpha=5, target_modules="all-linear", use_rslora=rank_stabilized, init_lora_weights=False
    )
    torch.manual_seed(5)
    theirs = peft.get_peft_model(plain, settings).eval()
    theirs.save_pretrained(base_directory.parent / "theirs")
    loaded, _ = load(base_directory.parent / "theirs")
    expected = logits(theirs)
    torch.testing.assert_close(logits(loaded), expected, rtol=0, atol=1e-4)
    assert not torch.allclose(expected, logits(base), atol=0.01)


def test_converting_an_adapter_writes_the_merged_model(base: Transformer, base_directory: Path) -> None:
    directory = saved(base, base_directory, LoraConfig(4))
    for format in ("bpe-llama", "huggingface", "gguf"):
        target = base_directory.parent / f"merged.{format}"
        convert(directory, target, format)
        torch.testing.assert_close(logits(load(target)[0]), logits(base), rtol=0, atol=1e-4)
    with pytest.raises(InputError, match="there is no checkpoint format 'adapter'; choose one of gguf, bpe-llama"):
        convert(base_directory, base_directory.parent / "no", "adapter")
    assert not (base_directory.parent / "no").exists()


def test_the_base_is_found_relative_to_the_adapter(base: Transformer, base_directory: Path) -> None:
    directory = saved(base, base_directory, LoraConfig(2, targets=("wv",)))
    shutil.move(base_directory, directory / "under")
    change(directory, base_model_name_or_path="under")
    torch.testing.assert_close(logits(load(directory)[0]), logits(base), rtol=0, atol=1e-4)


def change(directory: Path, **values: Any) -> None:
    path = directory / adapter.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'; only 'LORA' is supported"),
        ({"use_dora": True}, "use_dora is True, but the tensors of .* say otherwise"),
        ({"lora_bias": True}, "lora_bias is true, which is not supported"),
        ({"modules_to_save": ["lm_head"]}, "no tensor of lm_head, which modules_to_save of adapter_config.json lists"),
        ({"rank_pattern": {"q_proj": 2}}, "q_proj needs two matrices, lora_A and lora_B, of the rank 2 given in"),
        ({"init_lora_weights": "pissa"}, 'init_lora_weights is "pissa", which is not supported'),
        ({"of_tomorrow": 1}, "of_tomorrow is 1, which is not supported"),
        ({"r": 0}, "r is 0 and lora_alpha is 8; expected positive numbers"),
        ({"r": 3}, "needs two matrices, lora_A and lora_B, of the rank 3 given in adapter_config.json"),
        (
            {"base_model_name_or_path": None},
            "base_model_name_or_path is None; set it to the path or name of",
        ),
        ({"base_model_name_or_path": "org/model"}, "base model not found .*; set base_model_name_or_path to"),
        ({"base_model_name_or_path": "."}, "is itself an adapter; merge that one first"),
    ],
)
def test_unsupported_adapter_settings_are_refused_by_name(
    values: dict[str, Any], message: str, model: Transformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tiny_adapter(model, tmp_path)
    load(directory)
    change(directory, **values)
    monkeypatch.chdir(directory)
    with pytest.raises(InputError, match=message) as raised:
        load(directory)
    assert "\n" not in str(raised.value)


def tiny_adapter(model: Transformer, tmp_path: Path) -> Path:
    tokenizer = tmp_path / "tokenizer.json"
    Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=SPECIAL).save(tokenizer)
    save(tmp_path / "base", model, tokenizer)
    return saved(model, tmp_path / "base", LoraConfig(4))


@pytest.mark.filterwarnings("error:.*trained on")
def test_a_base_with_other_weights_of_the_same_shape_raises_a_warning(model: Transformer, tmp_path: Path) -> None:
    directory = tiny_adapter(model, tmp_path)
    expected = logits(load(directory)[0])
    # The same weights in another format, order or naming raise no warning.
    for name in ("huggingface", "meta"):
        convert(tmp_path / "base", tmp_path / name, name)
        change(directory, base_model_name_or_path=str(tmp_path / name))
        torch.testing.assert_close(logits(load(directory)[0]), expected)

    other = load(tmp_path / "base")[0]
    other.layers[1].ffn_norm.weight.data[3] *= 1.001
    save(tmp_path / "other", other, tmp_path / "tokenizer.json")
    change(directory, base_model_name_or_path=str(tmp_path / "other"))
    for use in (lambda: load(directory), lambda: convert(directory, tmp_path / "merged")):
        with pytest.warns(UserWarning, match="adapter: trained on other weights than those of .*other.*the right base"):
            use()

    # An adapter without a fingerprint, such as PEFT's, raises no warning.
    save_file(load_file(directory / adapter.WEIGHTS), directory / adapter.WEIGHTS)
    load(directory)


@pytest.mark.filterwarnings("error:.*trained on")
def test_quantized_weights_are_recognized_in_any_dtype(
    config: ModelConfig, make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model(dataclasses.replace(config, dim=64, hidden_dim=96))
    Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=SPECIAL).save(
        tmp_path / "tokenizer.json"
    )
    save(tmp_path / "whole.gguf", model, tmp_path / "tokenizer.json")
    convert(tmp_path / "whole.gguf", tmp_path / "base.gguf", quantize="q8_0")
    directory = saved(model, tmp_path / "base.gguf", LoraConfig(4))
    for dtype in (None, torch.float32, torch.float16):
        load(directory, dtype)
    change(directory, base_model_name_or_path=str(tmp_path / "whole.gguf"))
    with pytest.warns(UserWarning, match="trained on other weights"):
        load(directory)


def test_a_damaged_adapter_and_one_of_another_model_are_refused(
    config: ModelConfig, model: Transformer, make_model: MakeModel, tmp_path: Path
) -> None:
    directory = tiny_adapter(model, tmp_path)
    weights = directory / adapter.WEIGHTS
    whole = load_file(weights)
    first = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"

    def refused(message: str, tensors: dict[str, Tensor]) -> None:
        save_file(tensors, weights)
        with pytest.raises(InputError, match=message):
            load(directory)

    fits_not = (
        r"q_proj.lora_A.weight has the shape \[4, 31\], which does not fit layers.0.attention.wq.weight \[32, 32\]"
    )
    refused(f"{fits_not} of .*; is it the right base", whole | {first: torch.zeros(4, 31)})
    refused("contains NaN or infinity", whole | {first: torch.full((4, 32), float("nan"))})
    refused("model.layers.0.self_attn.q_proj needs two matrices", {k: v for k, v in whole.items() if k != first})
    embedding = {"base_model.model.model.embed_tokens.lora_embedding_A": torch.zeros(4, 259)}
    refused("model.embed_tokens needs two matrices, lora_A and lora_B", whole | embedding)
    other = {"base_model.model.model.embed_tokens.lora_A.weight": torch.zeros(4, 32)}
    refused("the tensor .*embed_tokens.lora_A.weight' fits no matrix of", whole | other)
    save_file(whole, weights)
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InputError, match="adapter_model.safetensors: not a complete safetensors file"):
        load(directory)
    weights.unlink()
    (directory / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(InputError, match="pickled weights are never read, so save the adapter again with PEFT"):
        load(directory)

    save_file(whole, weights)
    smaller = make_model(dataclasses.replace(config, n_layers=1))
    shutil.rmtree(tmp_path / "base")
    save(tmp_path / "base", smaller, tmp_path / "tokenizer.json")
    with pytest.raises(InputError, match=r"the tensor '.*layers\.1\..*' fits no matrix of .*base.*; is"):
        load(directory)
