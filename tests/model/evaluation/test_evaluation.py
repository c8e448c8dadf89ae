"""Evaluation against transformers and float64, token by token, for all windows and batches."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers

from bpe import InputError, Tokenizer
from model import ModelConfig, Transformer, save
from model.evaluation.choices import choices_table, evaluate_choices, read_questions
from model.evaluation.texts import evaluate_texts, read_text, texts_table
from model.evaluation.windows import Window, check_window, score, token_losses, windows
from model.generation.completions import prompt_ids
from support.reference_model import reference_logits
from support.references import BYTE_RANKS

SPECIAL = {"<|begin_of_text|>": 257, "<|end_of_text|>": 258}


def make_tokenizer(special: dict[str, int]) -> Tokenizer:
    return Tokenizer("letters", pat_str="llama3", mergeable_ranks={**BYTE_RANKS, b"th": 256}, special_tokens=special)


@pytest.fixture
def letters() -> Tokenizer:
    """A tokenizer of bytes and one merge, with a token that begins a text."""
    return make_tokenizer(SPECIAL)


def documents(count: int, seed: int = 0) -> list[bytes]:
    generator = np.random.default_rng(seed)
    words = [b"the", b"thin", b"cloth", b"sea", b"naive", "é".encode(), b"\xff\xfe", b"12"]
    return [b" ".join(words[int(n)] for n in generator.integers(0, len(words), size)) for size in range(1, count + 1)]


def log_probabilities(model: Transformer, ids: list[int]) -> npt.NDArray[np.float64]:
    """Return the log-probabilities after each token, in float64 from plain loops [ids, vocabulary]."""
    logits = reference_logits(model, ids)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def places_before(target: int, window: int, stride: int, length: int) -> int:
    """Return the number of tokens of context of each target, by the definition of windows."""
    end = window
    while end < target:
        end += stride
    return target - max(0, min(end, length - 1) - window)


def test_each_token_is_predicted_once_from_the_context_that_its_window_leaves() -> None:
    for length in range(14):
        for window in range(1, 8):
            for stride in range(1, window + 1):
                predicted = []
                for ids, count in windows(list(range(length)), window, stride):
                    assert ids == list(range(ids[0], ids[-1] + 1))
                    assert len(ids) - 1 <= window
                    for target in ids[-count:]:
                        predicted.append(target)
                        before = target - ids[0]
                        assert before == places_before(target, window, stride, length)
                        assert before >= min(target, window - stride + 1)
                assert predicted == list(range(1, length))


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


def test_losses_match_a_float64_computation(model: Transformer, letters: Tokenizer) -> None:
    ids = prompt_ids(letters, "the thin cloth, the sea")
    for _ in range(5):  # make the targets the likeliest tokens
        ids.append(int(reference_logits(model, ids)[-1].argmax()))
    (found,) = score(model, windows(ids, 64, 64))
    expected = log_probabilities(model, ids)
    assert found.likeliest[-5:].all()
    assert not found.likeliest.all()
    np.testing.assert_allclose(found.nats, -expected[np.arange(len(ids) - 1), ids[1:]], rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(found.likeliest, expected[:-1].argmax(axis=1) == ids[1:])


@pytest.mark.parametrize("batch_tokens", [1, 40, 200, 100_000])
def test_losses_do_not_depend_on_the_rest_of_the_batch(batch_tokens: int, model: Transformer) -> None:
    generator = np.random.default_rng(3)
    asked = [
        Window(generator.integers(0, 259, int(size)).tolist(), int(predicted))
        for size, predicted in zip(generator.integers(8, 40, 60), generator.integers(1, 7, 60), strict=True)
    ]
    done: list[tuple[int, int]] = []
    together = list(score(model, asked, batch_tokens, lambda *told: done.append(told)))
    assert done[-1] == (sum(len(window.ids) - 1 for window in asked), 60)
    for window, found in zip(asked, together, strict=True):
        (alone,) = score(model, [window])
        assert len(found.nats) == window.predicted
        np.testing.assert_allclose(found.nats, alone.nats, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(found.likeliest, alone.likeliest)


def test_at_most_chunk_logits_are_in_memory_at_a_time(model: Transformer) -> None:
    rows: list[int] = []
    model.output.register_forward_hook(lambda module, inputs, output: rows.append(output.shape[0]))
    hidden = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(50)
    losses, likeliest = token_losses(model, hidden, targets, chunk_logits=259 * 20)
    assert rows == [20, 20, 10]
    whole = model.head(hidden).double().log_softmax(-1)
    torch.testing.assert_close(losses.double(), -whole[torch.arange(50), targets], rtol=1e-5, atol=1e-5)
    assert torch.equal(likeliest, whole.argmax(-1) == targets)


def test_only_predicted_tokens_get_logits(model: Transformer) -> None:
    rows: list[int] = []
    model.output.register_forward_hook(lambda module, inputs, output: rows.append(output.shape[0]))
    list(score(model, [Window(list(range(30)), 4), Window(list(range(20)), 3)]))
    assert rows == [7]


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
    tokenizer = make_tokenizer({"<|end_of_text|>": 258})
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


@pytest.mark.parametrize(
    ("window", "stride", "words"),
    [
        (65, 1, "window is 65.*1 to 64"),
        (0, 1, "window is 0"),
        (16, 17, "stride is 17.*1 to 16"),
        (16, 0, "stride is 0"),
    ],
)
def test_windows_and_strides_out_of_range_raise(window: int, stride: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_window(window, stride, context=64)


def test_a_text_with_nothing_to_predict_raises(letters: Tokenizer) -> None:
    with pytest.raises(InputError, match="nil.txt: no text to measure"):
        read_text(letters, [b"", b""], "nil.txt")
    with pytest.raises(InputError, match="one.txt: nothing to predict.*1 documents, 2 bytes"):
        read_text(make_tokenizer({}), [b"th"], "one.txt")
    assert len(read_text(letters, [b"th"], "one.txt").documents) == 1  # the begin token precedes it


def test_damaged_weights_raise(model: Transformer) -> None:
    with torch.no_grad():
        model.norm.weight[0] = math.nan
    with pytest.raises(InputError, match="the loss of a token is nan; the model's weights are damaged"):
        list(score(model, [Window([1, 2, 3], 2)]))


# --- multiple choice ---


def write_questions(path: Path, questions: list[Any]) -> Path:
    text = "".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in questions)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def random_questions(count: int) -> list[dict[str, Any]]:
    generator = np.random.default_rng(11)
    words = ["sea", "the thin cloth", "é", "12", "thth", "one and another", "日本"]
    return [
        {
            "question": words[int(generator.integers(7))],
            "choices": [words[int(n)] for n in generator.permutation(7)[: int(generator.integers(2, 5))]],
            "answer": int(generator.integers(2)),
        }
        for _ in range(count)
    ]


def test_choices_are_ranked_by_sums_of_log_probabilities(
    model: Transformer, letters: Tokenizer, tmp_path: Path
) -> None:
    asked = random_questions(20)
    file = write_questions(tmp_path / "questions.jsonl.gz", [asked[0], "", *asked[1:]])
    questions = read_questions(letters, str(file), context=64, delimiter=": ")
    found = evaluate_choices(model, questions, "questions", samples=200, seed=3)
    right = []
    for each, told in zip(asked, found["answers"], strict=True):
        context = [257, *letters.encode(each["question"])]
        likelihoods, tokens = [], []
        for choice in each["choices"]:
            ids = [257, *letters.encode(each["question"] + ": " + choice)]
            assert ids[: len(context)] == context
            probabilities = log_probabilities(model, ids)
            likelihoods.append(sum(probabilities[at - 1, ids[at]] for at in range(len(context), len(ids))))
            tokens.append(len(ids) - len(context))
        assert told["log_likelihoods"] == pytest.approx(likelihoods, rel=1e-4)
        assert (told["tokens"], told["answer"]) == (tokens, each["answer"])
        assert told["bytes"] == [len(choice.encode()) for choice in each["choices"]]
        for_each = [np.array([1] * len(tokens)), np.array(tokens), np.array(told["bytes"])]
        right.append([int(np.argmax(np.array(likelihoods) / norm)) == each["answer"] for norm in for_each])
    keys = ("accuracy", "accuracy_per_token", "accuracy_per_byte")
    assert [found[key] for key in keys] == pytest.approx(np.mean(right, axis=0).tolist())
    assert len({found[key] for key in keys}) > 1  # otherwise the test could not tell them apart
    assert found["chance"] == pytest.approx(np.mean([1 / len(each["choices"]) for each in asked]))
    draws = np.random.default_rng(3)
    means = [np.mean([right[at] for at in draws.integers(0, 20, 20)], axis=0) for _ in range(200)]
    for key, column in zip(keys, np.array(means).T, strict=True):
        assert found[f"{key}_interval"] == pytest.approx(np.percentile(column, (2.5, 97.5)))
    assert "questions         20" in choices_table([found]).text()


def test_tokens_shared_with_the_question_alone_are_not_predicted(letters: Tokenizer, tmp_path: Path) -> None:
    record = {"question": "eat", "choices": ["hen", "ten"], "answer": 0}
    file = write_questions(tmp_path / "questions.jsonl", [record])
    (question,) = read_questions(letters, str(file), context=64, delimiter="")
    # "eat" + "hen" is e, a, th, e, n: the t of the question is no longer a token.
    assert [(list(window.ids), window.predicted) for window in question.choices] == [
        ([257, *b"ea", 256, *b"en"], 3),
        ([257, *b"eatten"], 3),
    ]


GOOD = {"question": "Is it", "choices": ["so", "not"], "answer": 1}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{'question'", "line 2 is not JSON"),
        (b"\xff\xfe".decode("latin-1") * 3, "line 2 is not JSON"),
        ("[1, 2]", "line 2 is not a JSON object"),
        ({**GOOD, "question": 7}, 'line 2: "question" is missing or not a string'),
        ({"question": "Is it", "answer": 0}, 'line 2: "choices" is not a list of non-empty strings'),
        ({**GOOD, "choices": "so"}, 'line 2: "choices" is not a list of non-empty strings'),
        ({**GOOD, "choices": ["so", ""]}, 'line 2: "choices" is not a list of non-empty strings'),
        ({**GOOD, "choices": ["so"], "answer": 0}, 'line 2: "choices" has 1 entries; give at least two'),
        ({**GOOD, "answer": 2}, 'line 2: "answer" is 2; .*0 to 1'),
        ({**GOOD, "answer": -1}, 'line 2: "answer" is -1'),
        ({**GOOD, "answer": True}, 'line 2: "answer" is True'),
        ({**GOOD, "answer": "B"}, "line 2: \"answer\" is 'B'"),
        ({**GOOD, "question": "x" * 70}, "line 2: choice 0 has 74 tokens with its question.*64"),
    ],
)
def test_an_invalid_question_raises_with_file_and_line(
    line: Any, words: str, letters: Tokenizer, tmp_path: Path
) -> None:
    file = write_questions(tmp_path / "questions.jsonl", [GOOD, line, GOOD])
    with pytest.raises(InputError, match=words) as error:
        read_questions(letters, str(file), context=64)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


def test_empty_files_and_questions_without_context_raise(letters: Tokenizer, tmp_path: Path) -> None:
    empty = write_questions(tmp_path / "empty.jsonl", ["", "  "])
    with pytest.raises(InputError, match="empty.jsonl: no questions"):
        read_questions(letters, str(empty), context=64)
    file = write_questions(tmp_path / "questions.jsonl", [{**GOOD, "question": ""}])
    assert read_questions(letters, str(file), context=64, delimiter="")[0].choices[0].predicted == 2
    with pytest.raises(InputError, match="line 1: choice 0 has no token before it"):
        read_questions(make_tokenizer({}), str(file), context=64, delimiter="")


def test_the_first_of_equally_likely_choices_wins(letters: Tokenizer, tmp_path: Path) -> None:
    model = Transformer(ModelConfig(dim=8, n_layers=1, n_heads=2, vocab_size=300, max_seq_len=32))
    with torch.no_grad():
        model.output.weight.zero_()
    asked = [{"question": "a", "choices": ["bb", "cc", "dddd"], "answer": answer} for answer in (0, 1, 2)]
    file = write_questions(tmp_path / "questions.jsonl", asked)
    found = evaluate_choices(model, read_questions(letters, str(file), 32), "questions")
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["accuracy_interval"] is None


MakeModel = Callable[[ModelConfig], Transformer]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_computed_in_float32_for_any_dtype_of_the_weights(
    dtype: torch.dtype, config: ModelConfig, make_model: MakeModel
) -> None:
    model = make_model(config).to(dtype)
    ids = list(range(40))
    (found,) = score(model, [Window(ids, 39)])
    with torch.no_grad():
        logits = model(torch.tensor([ids[:-1]]))[0].double()
    expected = -logits.log_softmax(-1)[torch.arange(39), ids[1:]].numpy()
    np.testing.assert_allclose(found.nats, expected, rtol=1e-5, atol=1e-5)
