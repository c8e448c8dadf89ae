"""Adapters that PEFT writes, in all the forms that change weights: the logits are PEFT's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bpe import InputError, Tokenizer
from model import load
from model.checkpoint import convert, open_adapter, open_checkpoint
from model.checkpoint.assemble import assemble
from model.lora import add_lora, set_adapter
from support.references import BYTE_RANKS

IDS = torch.tensor([[1, 5, 7, 2, 258]])
SETTINGS: dict[str, dict[str, Any]] = {
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "head": {"target_modules": ["lm_head", "q_proj"]},
    "embeddings and head": {"target_modules": ["lm_head", "embed_tokens"]},
    "tied LoRA": {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
    "whole embeddings and head": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "whole embeddings": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "whole head and norms": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]},
    "tied whole": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "whole queries": {"target_modules": ["v_proj"], "modules_to_save": ["q_proj", "k_proj"]},
    "rows": {"target_modules": ["q_proj"], "trainable_token_indices": [1, 5, 258]},
    "named rows": {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [1, 2]}},
    "DoRA": {"target_modules": ["q_proj", "k_proj", "down_proj"], "use_dora": True},
    "DoRA of embeddings": {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True},
    "patterns": {
        "target_modules": ["q_proj", "v_proj", "down_proj"],
        "rank_pattern": {"q_proj": 5, "layers.1.mlp.down_proj": 2},
        "alpha_pattern": {"v_proj": 3, "^model.layers.0.self_attn.q_proj": 7},
    },
    "stabilized patterns": {
        "target_modules": ["q_proj", "v_proj"], "use_rslora": True,
        "rank_pattern": {".*q_proj": 5}, "alpha_pattern": {"layers.0.self_attn.v_proj": 3},
    },
    "biases": {"target_modules": ["q_proj"], "bias": "all"},
    "biases of LoRA": {"target_modules": ["q_proj"], "bias": "lora_only"},
    "some layers": {"target_modules": ["q_proj"], "layers_to_transform": [1]},
}  # fmt: skip
STILL_TIED = {"tied LoRA", "rows", "named rows", "patterns", "stabilized patterns", "DoRA", "biases",
              "biases of LoRA", "some layers", "whole queries"}  # fmt: skip


def base(directory: Path, tied: bool, rows: int | None = None) -> Any:
    """Write a tiny base model with its tokenizer, and return it, with other embeddings if `rows` is given."""
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=259, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=tied, attention_bias=True,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(directory)
    special = {"<|end_of_text|>": 256}
    Tokenizer("b", pat_str="gpt2", mergeable_ranks=BYTE_RANKS, special_tokens=special).save(
        directory / "tokenizer.json"
    )
    if rows is not None:
        model.resize_token_embeddings(rows)
    return model


def adapter(directory: Path, base_directory: Path, model: Any, **settings: Any) -> Tensor:
    """Train nothing, but write an adapter with random weights; return the logits of PEFT."""
    import peft

    theirs = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=3, **settings)).eval()
    torch.manual_seed(1)
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, 0, 0.3)
    theirs.save_pretrained(directory)
    change(directory, base_model_name_or_path=str(base_directory))
    with torch.no_grad():
        logits: Tensor = theirs(IDS).logits
    return logits


def change(directory: Path, **values: Any) -> None:
    path = directory / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def logits(directory: Path) -> Tensor:
    with torch.no_grad():
        return load(directory, torch.float32)[0](IDS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("form", SETTINGS)
def test_logits_are_those_of_peft(form: str, tied: bool, tmp_path: Path) -> None:
    expected = adapter(tmp_path / "a", tmp_path / "base", base(tmp_path / "base", tied), **SETTINGS[form])
    torch.testing.assert_close(logits(tmp_path / "a"), expected, rtol=0, atol=1e-5)
    assert not torch.allclose(logits(tmp_path / "base"), expected, atol=1e-4)
    assert open_checkpoint(tmp_path / "a").config.tied_embeddings == (tied and form in STILL_TIED)
    convert(tmp_path / "a", tmp_path / "merged")
    torch.testing.assert_close(logits(tmp_path / "merged"), expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tied", [False, True])
def test_an_adapter_may_have_embeddings_with_more_rows(tied: bool, tmp_path: Path) -> None:
    model = base(tmp_path / "base", tied, rows=263)
    modules = ["embed_tokens", "lm_head"]
    expected = adapter(tmp_path / "a", tmp_path / "base", model, target_modules=["q_proj"], modules_to_save=modules)
    torch.testing.assert_close(logits(tmp_path / "a"), expected, rtol=0, atol=1e-5)
    assert open_checkpoint(tmp_path / "a").config.vocab_size == 263


def test_more_rows_need_the_output_head_as_well(tmp_path: Path) -> None:
    model = base(tmp_path / "base", tied=False, rows=263)
    adapter(
        tmp_path / "a", tmp_path / "base", model, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"]
    )
    file = tmp_path / "a" / "adapter_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(file).items() if "lm_head" not in name}, file)
    change(tmp_path / "a", modules_to_save=["embed_tokens"])
    with pytest.raises(
        InputError, match="adapter_model.safetensors: .*another number of rows.*bpe convert --resize-vocab"
    ):
        load(tmp_path / "a")


@pytest.mark.parametrize(
    ("form", "values", "message"),
    [
        ("rows", {"trainable_token_indices": [1, 5]}, "3 rows for model.embed_tokens, but trainable_token_indices"),
        ("rows", {"trainable_token_indices": [1, 5, 259]}, "trainable_token_indices has the id 259, but .* 259 rows"),
        ("rows", {"trainable_token_indices": [1, 5, -1]}, "does not list 3 ids"),
        ("rows", {"trainable_token_indices": {"lm_head": [1, 5, 7]}}, "does not list 3 ids"),
        ("patterns", {"rank_pattern": {"q_proj": "5"}}, "rank_pattern is .*; expected positive numbers by patterns"),
        ("patterns", {"alpha_pattern": ["v_proj"]}, "alpha_pattern is .*; expected positive numbers by patterns"),
        ("patterns", {"rank_pattern": {"q_proj": 5, "(": 2}}, r"'\(' is not a regular expression"),
        ("patterns", {"rank_pattern": {}}, "needs two matrices, lora_A and lora_B, of the rank 3"),
        ("DoRA", {"use_dora": False}, "use_dora is False, but the tensors of"),
        ("head", {"use_dora": True}, "use_dora is True, but the tensors of"),
        ("head", {"modules_to_save": ["lm_head"]}, "no tensor of lm_head, which modules_to_save"),
        ("head", {"modules_to_save": "lm_head"}, 'modules_to_save is "lm_head"; expected a list of names'),
        ("head", {"lora_bias": True}, "lora_bias is true, which is not supported"),
        ("head", {"bias": "some"}, 'bias is "some", which is not supported'),
        ("head", {"init_lora_weights": "pissa"}, 'init_lora_weights is "pissa", which is not supported'),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_a_configuration_that_does_not_fit_is_refused(
    form: str, values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    adapter(tmp_path / "a", tmp_path / "base", base(tmp_path / "base", tied=False), **SETTINGS[form])
    change(tmp_path / "a", **values)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "a")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stabilized", [False, True])
def test_an_adapter_of_peft_beside_its_base_gives_its_logits(stabilized: bool, tmp_path: Path) -> None:
    own = {"target_modules": ["q_proj", "down_proj"], "use_rslora": stabilized, "lora_dropout": 0.25, "lora_alpha": 5}
    expected = adapter(tmp_path / "a", tmp_path / "base", base(tmp_path / "base", True), **own)
    parts = open_adapter(tmp_path / "a")
    assert (parts.lora.rank, parts.lora.targets, parts.lora.dropout) == (3, ("wq", "w2"), 0.25)
    model = assemble(parts.base, torch.float32, torch.device("cpu"))
    add_lora(model, parts.lora)
    set_adapter(model, parts.adapter)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(IDS), expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["DoRA", "rows", "patterns", "some layers", "biases"])
def test_an_adapter_of_more_than_plain_lora_is_not_trained_further(form: str, tmp_path: Path) -> None:
    adapter(tmp_path / "a", tmp_path / "base", base(tmp_path / "base", True), **SETTINGS[form])
    with pytest.raises(InputError, match="adapter_config.json: .*; merge it into its base first .bpe convert"):
        open_adapter(tmp_path / "a")
