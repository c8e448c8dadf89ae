"""Llama 3.2 Vision in Meta's form: models of transformers, written under Meta's names, have the same logits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from bpe import Tokenizer, train_from_counts
from bpe.errors import InputError
from model.checkpoint import open_checkpoint
from model.checkpoint.assemble import assemble
from model.checkpoint.huggingface import write as write_huggingface
from model.checkpoint.meta import write as write_meta
from model.generation.completions import Completions
from model.images import tiled
from support.command_line import bpe
from support.references import BYTE_RANKS
from support.vision_models import as_ours, make, some_ids, some_images

DIM, WIDTH, CROSSING = 48, 32, [1, 4]
PARAMS: dict[str, Any] = {
    "dim": DIM, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 300, "multiple_of": 16,
    "ffn_dim_multiplier": 0.6, "norm_eps": 1e-5, "rope_theta": 10000.0, "use_scaled_rope": False,
    "vision_chunk_size": 28, "vision_max_num_chunks": 4, "vision_num_cross_attention_layers": 2,
}  # fmt: skip
TEXT = {"num_hidden_layers": 6, "cross_attention_layers": CROSSING}
# Meta's code keeps what the layers 3, 7, 15, 23 and 30 read; transformers 5 takes what the layers of its list return.
VISION = {
    "hidden_size": WIDTH, "num_hidden_layers": 32, "num_global_layers": 8, "attention_heads": 16,
    "intermediate_size": 128, "vision_output_dim": 6 * WIDTH, "patch_size": 14,
    "intermediate_layers_indices": [2, 6, 14, 22, 29],
}  # fmt: skip
RATIOS = [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1)]
TEXT_PARTS = {
    "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo", "cross_attn.q_proj": "attention.wq", "cross_attn.k_proj": "attention.wk",
    "cross_attn.v_proj": "attention.wv", "cross_attn.o_proj": "attention.wo", "cross_attn.q_norm": "attention.q_norm",
    "cross_attn.k_norm": "attention.k_norm", "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm",
    "cross_attn_attn_gate": "gate_attn", "cross_attn_mlp_gate": "gate_ffwd",
}  # fmt: skip
VISION_PARTS = {
    "self_attn.q_proj": "attn.wq", "self_attn.k_proj": "attn.wk", "self_attn.v_proj": "attn.wv",
    "self_attn.o_proj": "attn.wo", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2", "gate_attn": "gate_attn", "gate_ffn": "gate_ffn",
}  # fmt: skip
SINGLE = {
    "model.language_model.norm.weight": "text_model.norm.weight",
    "lm_head.weight": "text_model.output.weight",
    "model.multi_modal_projector.weight": "vision_model.vision_projection.weight",
    "model.multi_modal_projector.bias": "vision_model.vision_projection.bias",
    "model.vision_model.class_embedding": "vision_model.vision_encoder.class_embedding",
    "model.vision_model.gated_positional_embedding.embedding": "vision_model.vision_encoder.positional_embedding",
    "model.vision_model.gated_positional_embedding.gate": "vision_model.vision_encoder.gated_positional_embedding_gate",
    "model.vision_model.pre_tile_positional_embedding.gate": "vision_model.vision_encoder.pre_tile_pos_embed.gate",
    "model.vision_model.post_tile_positional_embedding.gate": "vision_model.vision_encoder.post_tile_pos_embed.gate",
    "model.vision_model.layernorm_pre.weight": "vision_model.vision_encoder.ln_pre.weight",
    "model.vision_model.layernorm_pre.bias": "vision_model.vision_encoder.ln_pre.bias",
    "model.vision_model.layernorm_post.weight": "vision_model.vision_encoder.ln_post.weight",
    "model.vision_model.layernorm_post.bias": "vision_model.vision_encoder.ln_post.bias",
}
TABLES = {
    "gated_positional_embedding.tile_embedding": "gated_positional_embedding",
    "pre_tile_positional_embedding.embedding": "pre_tile_pos_embed.embedding",
    "post_tile_positional_embedding.embedding": "post_tile_pos_embed.embedding",
}


def random_grids(theirs: Any) -> dict[str, Tensor]:
    """Return vectors for each row and column of tiles under Meta's names, and give transformers' model its tables."""
    grids = {}
    generator = torch.Generator().manual_seed(3)
    for name, meta in TABLES.items():
        table = theirs.get_parameter(f"model.vision_model.{name}.weight")
        grid = torch.randn(4, 4, table.shape[1] // (4 * WIDTH), WIDTH, generator=generator) * 0.5
        grids[f"vision_model.vision_encoder.{meta}"] = grid
        with torch.no_grad():
            table.zero_()
            for number, (height, width) in enumerate(RATIOS, 1):
                tiles = [grid[row, column] for row in range(height) for column in range(width)]
                flat = torch.stack(tiles).flatten()
                table[number, : len(flat)] = flat
    return grids


def interleaved(matrix: Tensor) -> Tensor:
    """Return the rows of queries or keys in Meta's order: the two halves of each head take turns."""
    heads = matrix.view(-1, 2, 6, DIM)  # heads of 12 rows
    return torch.stack((heads[:, 0], heads[:, 1]), 2).reshape(matrix.shape)


def as_meta(theirs: Any) -> dict[str, Tensor]:
    """Return the weights of transformers' model under Meta's names."""
    found = random_grids(theirs)
    reading = [layer for layer in range(6) if layer not in CROSSING]
    for name, tensor in theirs.state_dict().items():
        part = re.sub(r"\.(weight|bias)$", "", name.split("layers.")[-1].partition(".")[2])
        ending = name.rpartition(".")[2] if name.endswith((".weight", ".bias")) else ""
        layer = int(match[1]) if (match := re.search(r"layers\.(\d+)\.", name)) else -1
        if name in SINGLE:
            found[SINGLE[name]] = tensor
        elif "embed_tokens" in name:
            found["text_model.tok_embeddings.weight"] = tensor[:300]
            found["text_model.learnable_embedding.weight"] = tensor[300:]
        elif "patch_embedding" in name:
            found["vision_model.vision_encoder.conv1._linear.weight"] = tensor.reshape(WIDTH, 3 * 14 * 14)
        elif name.startswith("model.vision_model") and layer >= 0:
            stack = "global_transformer" if "global" in name else "transformer"
            new = f"vision_model.vision_encoder.{stack}.resblocks.{layer}.{VISION_PARTS[part]}"
            found[new + (f".{ending}" if ending else "")] = tensor
        elif layer >= 0:
            kind, numbers = ("cross_attention_layers", CROSSING) if layer in CROSSING else ("layers", reading)
            new = f"text_model.{kind}.{numbers.index(layer)}.{TEXT_PARTS[part]}"
            turned = interleaved(tensor) if part in ("self_attn.q_proj", "self_attn.k_proj") else tensor
            found[new + (f".{ending}" if ending else "")] = turned
        else:
            assert any(table in name for table in TABLES), name
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def cut(weights: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Split weights across two devices as the parallel layers of Meta's code do."""
    shards: list[dict[str, Tensor]] = [{}, {}]
    by_rows = (
        r"\.(wq|wk|wv|w1|w3|_linear|c_fc|output|tok_embeddings|learnable_embedding|vision_projection)\.(weight|bias)$"
    )
    for name, tensor in weights.items():
        axis = 0 if re.search(by_rows, name) else 1 if re.search(r"\.(wo|w2|c_proj)\.weight$", name) else None
        parts = [tensor] * 2 if axis is None else tensor.chunk(2, axis)
        for shard, part in zip(shards, parts, strict=True):
            shard[name] = part.clone()
    return shards


@pytest.fixture(scope="module")
def pair() -> tuple[Any, dict[str, Tensor]]:
    """Return a model of transformers, and its weights under Meta's names."""
    theirs = make(TEXT, VISION)
    return theirs, as_meta(theirs)


def put(path: Path, *shards: dict[str, Tensor], name: str = "consolidated.{:02}.pth", **params: Any) -> Path:
    given = {key: value for key, value in {**PARAMS, **params}.items() if value is not None}
    (path / "params.json").write_text(json.dumps(given), "utf-8")
    for number, shard in enumerate(shards):
        torch.save(shard, path / name.format(number))
    return path


def read(path: Path) -> Any:
    return assemble(open_checkpoint(path), torch.float32, torch.device("cpu")).eval()


Split = Callable[[dict[str, Tensor]], list[dict[str, Tensor]]]


@torch.inference_mode()
@pytest.mark.parametrize(
    ("split", "name"),
    [
        (lambda weights: [weights], "consolidated.00.pth"),
        (lambda weights: [weights], "consolidated.pth"),
        (cut, "consolidated.{:02}.pth"),
    ],
)
def test_logits_are_those_of_transformers(pair: Any, tmp_path: Path, split: Split, name: str) -> None:
    theirs, weights = pair
    ours = read(put(tmp_path, *split(weights), name=name))
    assert ours.config.cross_attention_layers == (1, 4)
    for text, ratios in (("abIcde", [(2, 2)]), ("IabIcd", [(1, 3), (2, 1)]), ("Iabcde", [(1, 1)])):
        ids = some_ids(text)
        images = some_images(ids, [ratios])
        expected = theirs(ids, **images).logits
        assert float((ours(ids, images=as_ours(images)) - expected).abs().max()) < 1e-5
    ids = some_ids("abcdef")
    assert float((ours(ids) - theirs(ids).logits).abs().max()) < 1e-5


def test_published_sizes_give_the_layers_of_the_presets(pair: Any, tmp_path: Path) -> None:
    sizes = {"n_layers": 32, "vision_num_cross_attention_layers": 8, "n_special_tokens": 8, "vision_chunk_size": 560}
    config = open_checkpoint(put(tmp_path, pair[1], **sizes, use_scaled_rope=True, rope_theta=500000.0)).config
    assert config.cross_attention_layers == (3, 8, 13, 18, 23, 28, 33, 38)
    assert (config.n_layers, config.max_seq_len, config.rope_scaling, config.tied_embeddings) == (
        40, 131072, "llama3", False,
    )  # fmt: skip
    vision = config.vision
    assert vision is not None
    assert (vision.image_size, vision.n_layers, vision.n_global_layers, config.image_token) == (560, 32, 8, 300)
    assert vision.feature_layers == (2, 6, 14, 22, 29)


def test_frequencies_and_repeated_gates_change_nothing(pair: Any, tmp_path: Path) -> None:
    gate = "text_model.cross_attention_layers.1.gate_attn"
    weights = {**pair[1], "text_model.rope.freqs": torch.ones(6), gate: pair[1][gate].repeat(DIM)}
    assert torch.equal(read(put(tmp_path, weights)).layers[4].attention_gate.weight, pair[1][gate])


@pytest.mark.parametrize(
    "name",
    [
        "text_model.cross_attention_layers.1.gate_ffwd", "text_model.layers.3.attention.wq.weight",
        "text_model.learnable_embedding.weight", "text_model.tok_embeddings.weight",
        "vision_model.vision_encoder.class_embedding", "vision_model.vision_encoder.gated_positional_embedding",
        "vision_model.vision_encoder.global_transformer.resblocks.7.mlp.c_proj.bias",
    ],
)  # fmt: skip
def test_a_missing_tensor_is_named_as_in_the_file(pair: Any, tmp_path: Path, name: str) -> None:
    weights = {key: tensor for key, tensor in pair[1].items() if key != name}
    with pytest.raises(InputError, match=rf"consolidated.00.pth: missing {re.escape(name)}; the file is incomplete"):
        read(put(tmp_path, weights))


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("text_model.extra", torch.ones(1), "unknown tensor 'text_model.extra'"),
        ("layers.0.attention.wq.weight", torch.ones(48, 48), "unknown tensor 'layers.0.attention.wq.weight'"),
        (
            "vision_model.vision_encoder.positional_embedding",
            torch.ones(10, 32),
            r"has the shape \[10, 32\], .*\[5, 32\]",
        ),
        ("vision_model.vision_encoder.gated_positional_embedding", torch.ones(5), r"expected \[4, 4, 5, 32\]"),
        (
            "vision_model.vision_encoder.class_embedding",
            torch.ones(30),
            "class_embedding has the shape .* multiple of 16",
        ),
        ("text_model.cross_attention_layers.0.gate_attn", torch.arange(2.0), r"gate_attn has the shape \[2\]"),
    ],
)
def test_unknown_and_misshapen_tensors_are_named(
    pair: Any, tmp_path: Path, name: str, tensor: Tensor, words: str
) -> None:
    with pytest.raises(InputError, match=f"consolidated.00.pth: .*{words}"):
        read(put(tmp_path, {**pair[1], name: tensor}))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"vision_chunk_size": None}, "missing vision_chunk_size"),
        ({"vision_num_cross_attention_layers": None}, "missing vision_num_cross_attention_layers"),
        ({"n_layers": None}, "missing n_layers"),
        ({"vision_chunk_size": "big"}, "vision_chunk_size is 'big'; expected a positive whole number"),
        ({"vision_chunk_size": 7}, r"patch_size \(14\) exceeds image_size \(7\)"),
        ({"vision_num_cross_attention_layers": -1}, "vision_num_cross_attention_layers is -1"),
        ({"vision_num_cross_attention_layers": 5}, "is 5, but n_layers is 4"),
        ({"n_layers": 10**12, "vision_num_cross_attention_layers": 10**12}, "n_layers"),
        ({"vision_max_num_chunks": 2}, "vision_max_num_chunks is 2, which is not supported; only 4 is"),
        ({"n_special_tokens": 16}, "n_special_tokens is 16"),
        ({"vision_patch": 3}, "unknown 'vision_patch'"),
        ({"vision": {"dim": 32}}, "vision is not a key of Meta's form"),
        ({"tied_embeddings": True}, "tied_embeddings is set"),
    ],
)
def test_wrong_keys_are_named(pair: Any, tmp_path: Path, params: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=f"params.json: .*{words}"):
        open_checkpoint(put(tmp_path, pair[1], **params))


def test_unknown_keys_can_be_ignored(pair: Any, tmp_path: Path) -> None:
    path = put(tmp_path, pair[1], vision_patch=3)
    with pytest.warns(UserWarning, match="vision_patch"):
        assert open_checkpoint(path, ignore_unknown=True).config.n_layers == 6


@pytest.mark.parametrize("name", ["consolidated.pth", "consolidated.00.pth"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    (put(tmp_path) / name).write_bytes(b"")
    with pytest.raises(InputError, match=f"{name}: not a complete PyTorch checkpoint"):
        open_checkpoint(tmp_path)


def test_files_of_different_models_are_refused(pair: Any, tmp_path: Path) -> None:
    first, second = cut(pair[1])
    second["vision_model.vision_encoder.ln_pre.bias"] += 1
    with pytest.raises(InputError, match=r"vision_encoder.ln_pre.bias differs between files that must agree"):
        read(put(tmp_path, first, second))


def test_it_is_written_in_hugging_faces_form_only(pair: Any, tmp_path: Path) -> None:
    path = put(tmp_path, pair[1])
    train_from_counts({"abc": 2}, vocab_size=258, special_tokens=["<|end|>"]).save(path / "tokenizer.json")
    write_huggingface(open_checkpoint(path), tmp_path / "out")
    expected = read(path).state_dict()
    found = read(tmp_path / "out").state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    with pytest.raises(InputError, match=r"consolidated.00.pth: Meta's format has no .*vision"):
        write_meta(open_checkpoint(path), tmp_path / "meta")


def test_convert_says_that_the_feature_layers_are_counted_otherwise(pair: Any, tmp_path: Path) -> None:
    path = put(tmp_path, pair[1])
    train_from_counts({"abc": 2}, vocab_size=258, special_tokens=["<|end|>"]).save(path / "tokenizer.json")
    words = "the images' feature layers are 2, 6, 14, 22, 29, where Meta's code counts each one higher"
    shown = bpe("convert", path, tmp_path / "out", "--format", "huggingface")
    assert shown.exit_code == 0, shown.output
    assert words in shown.stderr
    again = bpe("convert", tmp_path / "out", tmp_path / "again", "--format", "bpe-llama")
    assert again.exit_code == 0, again.output
    assert "feature layers" not in again.stderr


@torch.inference_mode()
def test_the_image_token_of_metas_tokenizer_is_that_of_the_model(pair: Any, tmp_path: Path) -> None:
    model = read(put(tmp_path, pair[1]))
    image = tiled(Image.new("RGB", (40, 20), "red"), model.config.vision)
    prompts: list[list[int]] = []
    for number in (260, 300):  # in Meta's tokenizer.model, it has a row of the vocabulary
        special = {"<|begin|>": 256, "<|image|>": number}
        tokenizer = Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=special)
        ids = tokenizer.encode("a<|image|>b", allowed_special="all")
        assert number in ids
        prompts.append(Completions(model, tokenizer, [ids], 1, images=[image]).generation.prompts[0])
    assert prompts[0] == prompts[1]
    assert prompts[0].count(300) == 1
