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

from bpe.errors import InputError
from bpe.shards import HELD_OUT, TRAIN, Shard, Shards, write_shards
from model import ModelConfig, Transformer
from model.training.loss import TokenBatch, next_token_loss
from model.training.metrics import read_metrics
from model.training.pretraining import Windows, _batches, _held_out_batches, _window, settings_of
from support.references import byte_tokenizer
from support.training_runs import SETTINGS, interrupted, losses, train


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
        assert "  " + " ".join(sample["text"].split()) in said.getvalue()


def test_a_run_resumes_from_its_directory_alone(
    data: Path, tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    interrupted(data, run, config, monkeypatch)
    directory, shape, kept = settings_of(run)
    assert (directory, shape) == (data, config)
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
