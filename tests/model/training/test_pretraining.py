"""Pretraining: windows on shards, held-out text, samples, and invalid input."""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bpe.display import visible
from bpe.errors import InputError
from bpe.shards import HELD_OUT, TRAIN, Shard, Shards, write_shards
from model import ModelConfig, Transformer, load, save
from model.training.loss import TokenBatch, next_token_loss
from model.training.metrics import read_metrics
from model.training.pretraining import (
    Windows,
    _batches,
    _held_out_batches,
    _window,
    pretrain,
    settings_of,
    shape_of,
)
from model.training.settings import TrainConfig
from support.references import byte_tokenizer
from support.training_runs import SETTINGS, interrupt_after, interrupted, losses, train


def test_each_evaluation_writes_a_sample(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = byte_tokenizer(special_tokens={"<|begin_of_text|>": 256, "<|end_of_text|>": 257})
    monkeypatch.setattr("model.training.pretraining.Tokenizer.from_file", lambda path: tokenizer)
    said = io.StringIO()
    train(data, tmp_path / "run", config, dataclasses.replace(SETTINGS, sample_tokens=5), progress=said)
    samples = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if record["kind"] == "sample"]
    assert [sample["step"] for sample in samples] == [0, 5, 10, 12]
    for sample in samples:
        place = f"  step {sample['step']}{', before training' * (sample['step'] == 0)}: "
        assert place + visible(" ".join(sample["text"].split()).encode()) in said.getvalue()


def test_a_run_resumes_from_its_directory_alone(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    interrupted(data, run, config, monkeypatch)
    directory, shape, kept, init = settings_of(run)
    assert (directory, shape, init) == (data, config, None)
    assert train(directory, run, shape, dataclasses.replace(SETTINGS, **kept)).steps == 12
    with pytest.raises(InputError, match="no run to resume; start one with --data"):
        settings_of(tmp_path / "none")


def test_training_without_held_out_documents_works(tmp_path: Path, tokenizer: Any, config: ModelConfig) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    write_shards(["A text.", "And one more."], tokenizer, tmp_path / "data", tokenizer_file=tmp_path / "tokenizer.json",
                 held_out=0)  # fmt: skip
    result = train(tmp_path / "data", tmp_path / "run", config)
    assert result.held_out_loss is None
    assert {kind for kind, _, _ in losses(tmp_path / "run")} == {"step"}
    assert train(tmp_path / "data", tmp_path / "run", config).already_finished


def test_a_model_too_small_for_the_data_is_refused(data: Path, tmp_path: Path, config: ModelConfig) -> None:
    with pytest.raises(InputError, match="set vocab_size to 259"):
        train(data, tmp_path / "run", dataclasses.replace(config, vocab_size=258))
    with pytest.raises(
        InputError, match="sequence_length is 16, but the context of the model holds 8 tokens; set it to 8"
    ):
        train(data, tmp_path / "run", dataclasses.replace(config, max_seq_len=8))
    assert not (tmp_path / "run").exists()


def shard(ids: Any, *offsets: int) -> Shard:
    ids = np.asarray(ids, np.uint16)
    return Shard("train-00000.bin", ids, np.array([0, *offsets, len(ids)]), "", "train-00000.docs", "")


def test_an_epoch_reads_each_token_once_and_targets_follow_inputs() -> None:
    windows = Windows([shard(np.arange(0, 40)), shard(np.arange(100, 140))], sequence_length=8, sequences=2, seed=3)
    for epoch in range(3):
        ids = torch.cat([windows[step][0] for step in range(5 * epoch, 5 * epoch + 5)])
        assert Counter(ids[:, :-1].flatten().tolist()) == Counter([*range(40), *range(100, 140)])
        steps = (ids[:, 1:] - ids[:, :-1]).flatten().tolist()
        assert set(steps) <= {1, -39}  # the next token, or the first one after the last


def test_epochs_differ_and_a_batch_follows_from_seed_and_number() -> None:
    shards = [shard(np.arange(1000))]
    one, other = Windows(shards, 8, 4, seed=1), Windows(shards, 8, 4, seed=1)
    in_order = [one[step][0] for step in range(70)]
    for step in (69, 3, 31, 0, 32):
        assert torch.equal(other[step][0], in_order[step])
    assert not torch.equal(torch.cat(in_order[:31]), torch.cat(in_order[31:62]))
    assert not torch.equal(Windows(shards, 8, 4, seed=2)[0][0], in_order[0])


def test_a_corpus_shorter_than_a_sequence_is_read_as_a_ring() -> None:
    window = Windows([shard(np.arange(5))], 12, 1, seed=0)[0][0][0].tolist()
    assert len(window) == 13
    assert all((after - before) % 5 == 1 for before, after in itertools.pairwise(window))


def test_a_corpus_of_one_token_is_refused() -> None:
    with pytest.raises(InputError, match="fewer than two tokens"):
        Windows([shard(np.zeros(1))], 8, 1, seed=0)


def test_positions_count_from_the_beginning_of_the_document_or_of_the_window() -> None:
    # Documents of 3, 0, 9 and 4 tokens, whose ids are the positions in the document.
    windows = Windows([shard([*range(3), *range(9), *range(4)], 3, 3, 12)], 6, 1, seed=0)
    for number in range(20):
        ids, positions = (tensor[0].tolist() for tensor in windows[number])
        expected = []
        for index, id in enumerate(ids):
            expected.append(0 if index == 0 or id == 0 else expected[-1] + 1)
        assert positions == expected


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("eval_tokens", [1 << 17, 50, 1])
def test_held_out_tokens_are_predicted_once_each(eval_tokens: int, across: bool, data: Path) -> None:
    shards = Shards(data)
    settings = dataclasses.replace(SETTINGS, eval_tokens=eval_tokens, across_documents=across)
    batches = _held_out_batches(shards, settings)
    (ids,) = shards.tokens(HELD_OUT)
    targets = torch.cat([batch.targets.flatten() for batch in batches])
    wanted = [id for id in ids[1 : 1 + eval_tokens].tolist() if across or id != shards.bos_id]
    assert targets[targets >= 0].tolist() == wanted
    inputs = torch.cat([batch.inputs.flatten() for batch in batches])
    if across:
        assert inputs[targets >= 0].tolist() == ids[:-1][:eval_tokens].tolist()
    assert shards.token_count(TRAIN) > shards.token_count(HELD_OUT) > 50


def test_loss_and_gradients_of_a_packed_window_match_those_of_its_documents(
    model: Transformer, config: ModelConfig
) -> None:
    lengths = (3, 1, 20, 2, 14)
    ids = torch.randint(256, (sum(lengths),), generator=torch.Generator().manual_seed(0)).numpy()
    ends = np.cumsum(lengths).tolist()
    window = [torch.from_numpy(each)[None] for each in _window(shard(ids, *ends[:-1]), 0, len(ids))]
    (packed,) = _batches(*window, dataclasses.replace(SETTINGS, sequence_length=len(ids), batch_tokens=len(ids)))
    model, documents = model.double(), np.split(ids.astype(np.int64), ends[:-1])
    next_token_loss(model, packed).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}

    model.zero_grad()
    alone = [TokenBatch(torch.from_numpy(d[None, :-1]), torch.from_numpy(d[None, 1:])) for d in documents if len(d) > 1]
    losses = [next_token_loss(model, batch) for batch in alone]
    sum(losses).backward()  # type: ignore[union-attr]
    assert packed.n_targets == sum(batch.n_targets for batch in alone) == sum(lengths) - len(lengths)
    # The loss is float32 in any case.
    torch.testing.assert_close(next_token_loss(model, packed), torch.stack(losses).sum(), rtol=1e-6, atol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-5, atol=1e-6, msg=name)

    logits = model(packed.inputs, positions=packed.positions)[0].split(lengths[:-1] + (lengths[-1] - 1,))
    for document, ours in zip(documents, logits, strict=True):
        expected = model(torch.from_numpy(document[None]))[0, : len(ours)]
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)  # rotations are float32


def test_with_across_documents_a_window_is_one_text(model: Transformer) -> None:
    ids = torch.arange(17)[None]
    (batch,) = _batches(ids, ids % 5, dataclasses.replace(SETTINGS, across_documents=True))
    assert batch.positions is None
    assert batch.targets.tolist() == ids[:, 1:].tolist()


# --- given weights ---

ENDS = {"<|begin_of_text|>": 256, "<|end_of_text|>": 257}


@pytest.fixture
def given(tmp_path: Path, config: ModelConfig, make_model: Any) -> tuple[Path, Path]:
    """A model, and shards that its tokenizer wrote."""
    tokenizer, file = byte_tokenizer(special_tokens=ENDS), tmp_path / "bytes" / "tokenizer.json"
    file.parent.mkdir()
    tokenizer.save(file)
    save(tmp_path / "base", make_model(dataclasses.replace(config, vocab_size=264)), file)
    texts = [f"The {animal} has {count} eggs." for animal in ("cat", "dog", "hen") for count in range(9)]
    write_shards(texts, tokenizer, tmp_path / "text", tokenizer_file=file, held_out=0.2)
    return tmp_path / "base", tmp_path / "text"


def continued(given: tuple[Path, Path], run: Path, settings: TrainConfig = SETTINGS) -> Any:
    model, data = given
    return pretrain(data, run, shape_of(model), settings, progress=io.StringIO(), init=model)


def test_training_starts_from_given_weights(given: tuple[Path, Path], tmp_path: Path) -> None:
    result = continued(given, tmp_path / "run")
    before, data = load(given[0])[0], Shards(given[1])
    batches = _held_out_batches(data, SETTINGS)
    nats = sum(next_token_loss(before, batch).item() for batch in batches)
    records = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "evaluation"]
    assert records[0]["loss"] == pytest.approx(nats / sum(batch.n_targets for batch in batches), rel=1e-5)
    assert result.held_out_loss < records[0]["loss"]
    assert settings_of(tmp_path / "run")[3] == str(given[0])
    assert load(tmp_path / "run")[1].special_tokens == ENDS


def test_an_interrupted_run_from_given_weights_resumes_bit_for_bit(
    given: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    continued(given, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            continued(given, tmp_path / "run", dataclasses.replace(SETTINGS, checkpoint_every=1e-9))
    directory, shape, kept, init = settings_of(tmp_path / "run")
    pretrain(directory, tmp_path / "run", shape, TrainConfig(**kept), progress=io.StringIO(), init=init)
    models = [load(tmp_path / name)[0].state_dict() for name in ("whole", "run")]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_shards_of_another_tokenizer_or_another_model_are_refused(
    given: tuple[Path, Path], config: ModelConfig, make_model: Any, tmp_path: Path
) -> None:
    file = tmp_path / "other" / "tokenizer.json"
    file.parent.mkdir()
    tokenizer = byte_tokenizer(special_tokens={"<|begin_of_text|>": 256, "<|end|>": 257})
    tokenizer.save(file)
    write_shards(["One.", "Two."], tokenizer, tmp_path / "others", tokenizer_file=file, held_out=0)
    with pytest.raises(InputError, match="another tokenizer than that of .* has the id 257.*bpe shards -t"):
        continued((given[0], tmp_path / "others"), tmp_path / "run")
    with pytest.raises(InputError, match="holds the model to start from"):
        continued(given, given[0])
    assert not (tmp_path / "run").exists()
    continued(given, tmp_path / "run")
    save(given[0], make_model(dataclasses.replace(config, vocab_size=264), seed=5), tmp_path / "bytes/tokenizer.json")
    with pytest.raises(InputError, match="weights"):
        continued(given, tmp_path / "run")
