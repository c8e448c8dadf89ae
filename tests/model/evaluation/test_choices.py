"""Multiple choice, against plain sums of log-probabilities."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bpe import InputError, Tokenizer
from model import ModelConfig, Transformer
from model.evaluation.choices import choices_table, evaluate_choices, read_questions
from support.letters import letters_tokenizer, log_probabilities


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
        read_questions(letters_tokenizer({}), str(file), context=64, delimiter="")


def test_the_first_of_equally_likely_choices_wins(letters: Tokenizer, tmp_path: Path) -> None:
    model = Transformer(ModelConfig(dim=8, n_layers=1, n_heads=2, vocab_size=300, max_seq_len=32))
    with torch.no_grad():
        model.output.weight.zero_()
    asked = [{"question": "a", "choices": ["bb", "cc", "dddd"], "answer": answer} for answer in (0, 1, 2)]
    file = write_questions(tmp_path / "questions.jsonl", asked)
    found = evaluate_choices(model, read_questions(letters, str(file), 32), "questions")
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["accuracy_interval"] is None
