"""Meta's checkpoints: one file, or one for each device that the model was split across."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bpe import Tokenizer
from bpe.errors import InputError
from model import ModelConfig, Transformer, load, save
from model.checkpoint import meta, open_checkpoint
from model.checkpoint.assemble import assemble
from support.references import BYTE_RANKS

MakeModel = Callable[[ModelConfig], Transformer]
# The axis along which Meta's parallel layers split a tensor (Llama 3 reference code): outputs of column-parallel
# layers, inputs of row-parallel layers; columns of the embeddings in Llama 1 and 2, rows in Llama 3.
COLUMNS, ROWS = ("wq", "wk", "wv", "w1", "w3", "output"), ("wo", "w2")


def read(path: Path, dtype: torch.dtype | None = None) -> Transformer:
    return assemble(open_checkpoint(path), dtype, torch.device("cpu"))


def cut(weights: Mapping[str, Tensor], count: int, embedding_axis: int) -> list[dict[str, Tensor]]:
    """Split weights across devices; return the tensors of each device."""
    shards: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for name, tensor in weights.items():
        module, kind = name.split(".")[-2:]
        axis = 0 if module in COLUMNS else 1 if module in ROWS else embedding_axis if "tok" in module else None
        if axis is None or (kind == "bias" and module in ROWS):
            parts = [tensor] * count
        elif module in ("wk", "wv") and count > 2:  # two key-value heads on four devices
            parts = [part for part in tensor.chunk(2, axis) for _ in range(count // 2)]
        else:
            parts = list(tensor.chunk(count, axis))
        for shard, part in zip(shards, parts, strict=True):
            shard[name] = part.clone()
    return shards


@pytest.fixture
def metas(tmp_path: Path, model: Transformer) -> Path:
    """A directory in Meta's format whose params.json has only Meta's keys."""
    directory = tmp_path / "meta"
    directory.mkdir()
    params = model.config.to_params()
    kept = ("dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "norm_eps", "rope_theta", "multiple_of",
            "ffn_dim_multiplier")  # fmt: skip
    (directory / "params.json").write_text(json.dumps({key: params[key] for key in kept}))
    torch.save(model.state_dict(), directory / "consolidated.00.pth")
    return directory


def test_a_checkpoint_of_meta_gives_the_same_logits(metas: Path, model: Transformer) -> None:
    loaded = read(metas)
    assert not loaded.config.tied_embeddings
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(loaded(ids), model(ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("same", [False, True])
def test_a_separate_output_matrix_unties_the_embeddings(same: bool, metas: Path, model: Transformer) -> None:
    params = json.loads((metas / "params.json").read_text())
    (metas / "params.json").write_text(json.dumps({**params, "tied_embeddings": True}))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if not same:
        weights["output.weight"] += 1
    torch.save({**weights, "rope.freqs": torch.ones(4)}, metas / "consolidated.00.pth")
    loaded = read(metas)
    assert loaded.config.tied_embeddings == same
    assert torch.equal(loaded.output.weight, weights["output.weight"])


class Harm:
    """An object that creates a file when it is unpickled, like code in a hostile checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_malicious_pickle_raises_and_is_not_executed(
    how: str, metas: Path, tmp_path: Path, model: Transformer
) -> None:
    harm, path = tmp_path / "harm", metas / "consolidated.00.pth"
    content = {**model.state_dict(), "evil": Harm(harm)}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=r"consolidated\.00\.pth: "):
        read(metas)
    assert not harm.exists()
    pickle.loads(pickle.dumps(Harm(harm)))
    assert harm.exists()  # unpickling would have executed code


@pytest.mark.parametrize("kept", [0, 100, -100])
def test_a_truncated_checkpoint_raises_with_the_file_name(kept: int, metas: Path) -> None:
    path = metas / "consolidated.00.pth"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"consolidated\.00\.pth: "):
        read(metas)


@pytest.mark.parametrize("content", [[1, 2], {"tok_embeddings.weight": 5}])
def test_a_file_without_a_dictionary_of_tensors_raises(content: Any, metas: Path) -> None:
    torch.save(content, metas / "consolidated.00.pth")
    with pytest.raises(InputError, match=r"consolidated\.00\.pth: .*expected (a dictionary of )?tensors"):
        read(metas)


@pytest.fixture
def untied(config: ModelConfig, make_model: MakeModel) -> Transformer:
    return make_model(dataclasses.replace(config, tied_embeddings=False, vocab_size=260, qkv_bias=True, wo_bias=True))


def write_shards(directory: Path, model: Transformer, count: int, embedding_axis: int) -> Path:
    directory.mkdir()
    (directory / "params.json").write_text(json.dumps(model.config.to_params()))
    for number, shard in enumerate(cut(model.state_dict(), count, embedding_axis)):
        torch.save({**shard, "rope.freqs": torch.ones(4)}, directory / f"consolidated.{number:02}.pth")
    return directory


@pytest.mark.parametrize("embedding_axis", [0, 1])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_model_split_across_devices_is_joined(
    count: int, embedding_axis: int, untied: Transformer, tmp_path: Path
) -> None:
    directory = write_shards(tmp_path / "cut", untied, count, embedding_axis)
    loaded = read(directory)
    assert loaded.config == untied.config
    for name, tensor in untied.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize("embedding_axis", [0, 1])
@pytest.mark.parametrize("count", [1, 2])
def test_a_missing_vocabulary_size_comes_from_the_embeddings(
    count: int, embedding_axis: int, untied: Transformer, tmp_path: Path
) -> None:
    directory = write_shards(tmp_path / "cut", untied, count, embedding_axis)
    params = json.loads((directory / "params.json").read_text())
    (directory / "params.json").write_text(json.dumps({**params, "vocab_size": -1}))
    assert open_checkpoint(directory).config == untied.config


@pytest.mark.parametrize("same", [False, True])
def test_a_split_output_matrix_is_compared_with_the_embeddings(same: bool, untied: Transformer, tmp_path: Path) -> None:
    if same:
        with torch.no_grad():
            untied.output.weight.copy_(untied.tok_embeddings.weight)
    directory = write_shards(tmp_path / "cut", untied, 2, embedding_axis=1)
    params = json.loads((directory / "params.json").read_text())
    (directory / "params.json").write_text(json.dumps({**params, "tied_embeddings": True}))
    loaded = read(directory)
    assert loaded.config.tied_embeddings == same
    assert torch.equal(loaded.output.weight, untied.output.weight)


def test_files_that_do_not_add_up_to_the_model_raise_with_their_names(untied: Transformer, tmp_path: Path) -> None:
    directory = write_shards(tmp_path / "cut", untied, 4, embedding_axis=0)
    last, second = directory / "consolidated.03.pth", directory / "consolidated.01.pth"
    content = second.read_bytes()

    weights = torch.load(second)
    torch.save({**weights, "norm.weight": weights["norm.weight"] + 1}, second)
    with pytest.raises(InputError, match=r"cut: norm\.weight differs between files that must agree"):
        read(directory)
    torch.save({**weights, "norm.weight": torch.ones(31)}, second)
    with pytest.raises(InputError, match=r"cut: norm\.weight has different shapes or dtypes in the files"):
        read(directory)
    del weights["norm.weight"]
    torch.save(weights, second)
    with pytest.raises(InputError, match=r"cut: norm\.weight is in only 3 of 4 files"):
        read(directory)
    second.write_bytes(content[:-100])
    with pytest.raises(InputError, match=r"consolidated\.01\.pth: not a complete PyTorch checkpoint"):
        read(directory)
    second.write_bytes(content)

    last.unlink()
    with pytest.raises(InputError, match=r"does not add up to \[260, 32\]; is consolidated\.03\.pth missing\?"):
        read(directory)
    second.unlink()
    with pytest.raises(InputError, match=r"consolidated\.01\.pth is missing, one of at least 3 files; download"):
        read(directory)
    (directory / "consolidated.00.pth").unlink()
    with pytest.raises(InputError, match=r"consolidated\.00\.pth is missing"):
        read(directory)


def test_a_malicious_pickle_in_a_second_file_raises_and_is_not_executed(untied: Transformer, tmp_path: Path) -> None:
    directory = write_shards(tmp_path / "cut", untied, 2, embedding_axis=0)
    path = directory / "consolidated.01.pth"
    torch.save({**torch.load(path), "evil": Harm(tmp_path / "harm")}, path)
    with pytest.raises(InputError, match=r"consolidated\.01\.pth: contains something other than tensors"):
        read(directory)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_written_in_metas_format_loads_exactly(
    tied: bool, config: ModelConfig, make_model: MakeModel, tmp_path: Path
) -> None:
    tokenizer = Tokenizer(
        "bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens={"<|end_of_text|>": 256}
    )
    tokenizer.save(tmp_path / "tokenizer.json")
    model = make_model(dataclasses.replace(config, tied_embeddings=tied))
    save(tmp_path / "meta", model, tmp_path / "tokenizer.json", format="meta")
    assert meta.recognises(tmp_path / "meta")
    loaded, same = load(tmp_path / "meta")
    assert loaded.config == model.config
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert same.special_tokens == tokenizer.special_tokens
    weights = torch.load(tmp_path / "meta" / "consolidated.00.pth")
    assert set(weights) == set(model.state_dict())
    assert (weights["output.weight"].data_ptr() == weights["tok_embeddings.weight"].data_ptr()) == tied
    ranks_alone = Tokenizer.from_file(tmp_path / "meta" / "tokenizer.model", "llama3", {})
    assert ranks_alone.mergeable_ranks == tokenizer.mergeable_ranks


def test_a_tensor_that_is_a_view_is_written_without_the_rest_of_its_storage(
    untied: Transformer, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\n")
    state = {name: torch.cat([tensor] * 50)[: len(tensor)] for name, tensor in untied.state_dict().items()}
    untied.load_state_dict(state, assign=True)
    save(tmp_path / "meta", untied, tmp_path / "tokenizer.model", format="meta")
    size = 4 * untied.config.n_parameters
    assert size < (tmp_path / "meta" / "consolidated.00.pth").stat().st_size < 1.5 * size
