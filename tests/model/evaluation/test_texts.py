"""Perplexity and bits per byte of texts, against transformers and their definitions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from bpe import InputError, Tokenizer
from model import ModelConfig, Transformer, save
from model.evaluation.texts import evaluate_texts, read_text, texts_table
from model.evaluation.windows import Window, score
from support.letters import letters_tokenizer, log_probabilities, places_before
from support.references import BYTE_RANKS


def documents(count: int, seed: int = 0) -> list[bytes]:
    generator = np.random.default_rng(seed)
    words = [b"the", b"thin", b"cloth", b"sea", b"naive", "é".encode(), b"\xff\xfe", b"12"]
    return [b" ".join(words[int(n)] for n in generator.integers(0, len(words), size)) for size in range(1, count + 1)]


@pytest.mark.parametrize(("window", "stride"), [(64, 64), (16, 16), (16, 5), (16, 1)])
def test_losses_match_transformers_token_by_token(
    window: int, stride: int, model: Transformer, letters: Tokenizer, tmp_path: Path
) -> None:
    letters.save(tmp_path / "tokenizer.json")
    save(tmp_path / "hf", model, tmp_path / "tokenizer.json", "huggingface")
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float64)
    texts = documents(6)
    nats, tokens, right = 0.0, 0, 0
    for text in texts:
        ids = [257, *letters.encode(text)]
        for target in range(1, len(ids)):
            start = target - places_before(target, window, stride, len(ids))
            with torch.no_grad():
                logits = theirs(torch.tensor([ids[start:target]])).logits[0, -1]
            nats -= logits.log_softmax(-1)[ids[target]].item()
            right += int(logits.argmax()) == ids[target]
            tokens += 1

    found = evaluate_texts(model, letters, [read_text(letters, texts, "words")], window=window, stride=stride)
    (row,) = found["texts"]
    assert found["all_texts"] == {**row, "name": "all texts"}
    assert (row["name"], row["documents"], row["tokens"]) == ("words", 6, tokens)
    assert (row["bytes"], row["bytes_left_out"]) == (sum(map(len, texts)), 0)
    assert row["nats"] == pytest.approx(nats, rel=1e-6)
    assert row["loss"] == pytest.approx(nats / tokens, rel=1e-6)
    assert row["perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-5)
    assert row["bits_per_byte"] == pytest.approx(nats / math.log(2) / sum(map(len, texts)), rel=1e-6)
    assert row["likeliest"] == right / tokens


def test_a_uniform_model_needs_the_logarithm_of_its_vocabulary_for_each_token(letters: Tokenizer) -> None:
    model = Transformer(ModelConfig(dim=8, n_layers=1, n_heads=2, vocab_size=512, max_seq_len=32)).double()
    with torch.no_grad():
        model.output.weight.zero_()
    found = evaluate_texts(model, letters, [read_text(letters, [b"the sea " * 90], "sea")], window=32, stride=7)
    (row,) = found["texts"]
    assert row["tokens"] == 7 * 90
    assert row["nats"] == pytest.approx(9 * math.log(2) * 630, rel=1e-12)
    assert row["bits_per_byte"] == pytest.approx(9 * 630 / 720, rel=1e-12)
    assert row["perplexity"] == pytest.approx(512, rel=1e-12)


def test_bits_per_byte_are_comparable_between_vocabularies() -> None:
    """The same distribution over texts, with a vocabulary of letters and one of pairs of letters."""
    pairs = {pair: 256 + number for number, pair in enumerate((b"aa", b"ab", b"ba", b"bb"))}
    few, many = (
        Tokenizer("ab", pat_str="[ab]{2}", mergeable_ranks=ranks, special_tokens={"<|begin_of_text|>": 300})
        for ranks in (BYTE_RANKS, {**BYTE_RANKS, **pairs})
    )
    text = b"".join((b"aa", b"ab", b"ba", b"bb")[int(n)] for n in np.random.default_rng(0).integers(0, 4, 500))
    found = []
    for tokenizer, likely in ((few, [97, 98]), (many, [256, 257, 258, 259])):
        model = Transformer(ModelConfig(dim=8, n_layers=1, n_heads=2, vocab_size=301, max_seq_len=2000)).double()
        model.output = torch.nn.Linear(8, 301, dtype=torch.float64)
        with torch.no_grad():
            model.norm.weight.zero_()  # then the logits are the head's bias
            model.output.bias.fill_(-1e9)
            model.output.bias[likely] = 0.0
        (row,) = evaluate_texts(model, tokenizer, [read_text(tokenizer, [text], "ab")], window=50, stride=25)["texts"]
        found.append(row)
    assert [row["bits_per_byte"] for row in found] == pytest.approx([1.0, 1.0], rel=1e-12)
    assert [row["perplexity"] for row in found] == pytest.approx([2.0, 4.0], rel=1e-12)


def test_without_a_token_that_begins_texts_the_first_token_is_neither_predicted_nor_counted(model: Transformer) -> None:
    tokenizer = letters_tokenizer({"<|end_of_text|>": 258})
    texts = [b"thin", b"x", b"", b"sea"]
    found = evaluate_texts(model, tokenizer, [read_text(tokenizer, texts, "words")], window=64, stride=64)
    (row,) = found["texts"]
    nats = 0.0
    for ids in ([256, *b"in"], list(b"sea")):
        probabilities = log_probabilities(model, ids)
        nats -= sum(probabilities[at, ids[at + 1]] for at in range(len(ids) - 1))
    assert (row["documents"], row["tokens"], row["bytes"], row["bytes_left_out"]) == (2, 4, 4, 4)
    assert row["nats"] == pytest.approx(nats, rel=1e-5)


def test_special_tokens_in_a_text_are_ordinary_text_and_any_bytes_are_accepted(
    model: Transformer, letters: Tokenizer
) -> None:
    texts = [bytes(range(256)), b"<|end_of_text|>"]
    (row,) = evaluate_texts(model, letters, [read_text(letters, texts, "all")], window=64, stride=32)["texts"]
    assert (row["bytes"], row["bytes_left_out"], row["tokens"]) == (271, 0, 271)


def test_the_numbers_of_several_texts_add_up(model: Transformer, letters: Tokenizer) -> None:
    texts = [documents(12, seed) for seed in (1, 2)]
    read = [read_text(letters, text, name) for text, name in zip(texts, ("one", "two"), strict=True)]
    found = evaluate_texts(model, letters, read, window=16, stride=8)
    for row, text in zip(found["texts"], read, strict=True):
        (alone,) = evaluate_texts(model, letters, [text], window=16, stride=8)["texts"]
        assert row.keys() == alone.keys()
        for key, value in row.items():
            assert value == (value if isinstance(value, str) else pytest.approx(alone[key], rel=1e-5)), key
    everything = found["all_texts"]
    for key in ("documents", "tokens", "bytes", "nats"):
        assert everything[key] == pytest.approx(sum(row[key] for row in found["texts"]))
    names = [line.split("  ")[0] for line in texts_table(found).text().splitlines()]
    assert names == ["text", "one", "two", "all texts"]


def test_intervals_match_resampling_documents_one_by_one(model: Transformer, letters: Tokenizer) -> None:
    texts = [text[:40] for text in documents(30) * 4]
    found = evaluate_texts(
        model, letters, [read_text(letters, texts, "words")], window=64, stride=64, samples=200, seed=7
    )
    (row,) = found["texts"]
    assert (row["units"], row["unit"]) == (120, "documents")
    sums = []
    for text in texts:
        ids = [257, *letters.encode(text)]
        (scores,) = score(model, [Window(ids, len(ids) - 1)])
        sums.append((scores.nats.sum(), len(ids) - 1, len(text)))
    draws = np.random.default_rng(7)
    bits, perplexities = [], []
    for _ in range(200):
        nats, tokens, size = np.sum([sums[place] for place in draws.integers(0, 120, 120)], axis=0)
        bits.append(nats / math.log(2) / size)
        perplexities.append(math.exp(nats / tokens))
    assert row["bits_per_byte_interval"] == pytest.approx(np.percentile(bits, (2.5, 97.5)), rel=1e-5)
    assert row["perplexity_interval"] == pytest.approx(np.percentile(perplexities, (2.5, 97.5)), rel=1e-4)


def test_few_documents_are_resampled_in_blocks_and_a_short_text_has_no_intervals(
    model: Transformer, letters: Tokenizer
) -> None:
    long = read_text(letters, [b"the sea " * 2000, b"cloth " * 100], "long")
    (row,) = evaluate_texts(model, letters, [long], window=64, stride=64)["texts"]
    assert (row["units"], row["unit"]) == (16 + 1, "blocks of 1,000 bytes")
    assert row["bits_per_byte_interval"][0] <= row["bits_per_byte"] <= row["bits_per_byte_interval"][1]
    found = evaluate_texts(model, letters, [read_text(letters, [b"the sea"], "short")], window=64, stride=64)
    assert found["texts"][0]["bits_per_byte_interval"] is None
    assert texts_table(found).text().count("–") == 2


def test_a_text_with_nothing_to_predict_raises(letters: Tokenizer) -> None:
    with pytest.raises(InputError, match="nil.txt: no text to measure"):
        read_text(letters, [b"", b""], "nil.txt")
    with pytest.raises(InputError, match="one.txt: nothing to predict.*1 documents, 2 bytes"):
        read_text(letters_tokenizer({}), [b"th"], "one.txt")
    assert len(read_text(letters, [b"th"], "one.txt").documents) == 1  # the begin token precedes it
