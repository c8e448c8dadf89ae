"""Evaluate a model on multiple-choice questions: how often the right choice is the likeliest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bpe import Tokenizer
from bpe.analysis.bootstrap import draw_sums, interval_text, middle_95
from bpe.analysis.tables import Table, percent
from bpe.corpus import records
from bpe.corpus.feed import as_bytes
from bpe.errors import InputError
from bpe.progress import Progress, shown
from model.evaluation.windows import BATCH_TOKENS, Window, reported, score
from model.generation.completions import prompt_ids
from model.transformer import Transformer


class Question(NamedTuple):
    """A question with several choices, encoded."""

    choices: Sequence[Window]
    """The question followed by each choice; the tokens of the choice are predicted."""
    bytes: Sequence[int]
    """The size of each choice in bytes."""
    answer: int
    """The index of the right choice, from 0."""


def read_questions(tokenizer: Tokenizer, source: str, context: int, delimiter: str = " ") -> list[Question]:
    """Read questions from JSON lines: {"question": text, "choices": [text, ...], "answer": index from 0}.

    Question, delimiter and choice are encoded together as ordinary text. The tokens of the choice are those after the
    longest common prefix with the tokens of the question alone.

    Args:
        tokenizer: The tokenizer of the model.
        source: The files to read, as `bpe.corpus.records` takes them.
        context: The model's context in tokens.
        delimiter: The text between question and choice.

    Raises:
        InputError: When a line is not such a question or does not fit the context; the message names file and line.
    """
    questions = []
    begin = prompt_ids(tokenizer, "")
    for place, record in records(source):
        question, choices, answer = _question(record, place)
        alone = begin + tokenizer.encode_ordinary(question)
        choice_windows = []
        for number, choice in enumerate(choices):
            ids = begin + tokenizer.encode_ordinary(question + delimiter + choice)
            choice_windows.append(_choice_window(alone, ids, context, f"{place}: choice {number}"))
        sizes = [len(as_bytes(choice)) for choice in choices]
        questions.append(Question(choice_windows, sizes, answer))
    if not questions:
        raise InputError(f"{source}: no questions; write one in each line")
    return questions


def _choice_window(question: Sequence[int], ids: Sequence[int], context: int, name: str) -> Window:
    """Return the window that predicts a choice, given the ids of the question alone and with the choice."""
    shared = next((at for at, (a, b) in enumerate(zip(question, ids, strict=False)) if a != b), len(question))
    if not 0 < shared < len(ids):
        missing = "token before it" if shared == 0 else "token of its own"
        raise InputError(f"{name} has no {missing}, so nothing can be predicted")
    if len(ids) - 1 > context:
        raise InputError(
            f"{name} has {len(ids):,} tokens with its question, but the model's context holds {context:,}; shorten it"
        )
    return Window(ids, len(ids) - shared)


def _question(record: Mapping[str, Any], place: str) -> tuple[str, list[str], int]:
    question, choices, answer = (record.get(key) for key in ("question", "choices", "answer"))
    if not isinstance(question, str):
        raise InputError(f'{place}: "question" is missing or not a string')
    if not isinstance(choices, list) or not all(isinstance(choice, str) and choice for choice in choices):
        raise InputError(f'{place}: "choices" is not a list of non-empty strings')
    if len(choices) < 2:
        raise InputError(f'{place}: "choices" has {len(choices)} entries; give at least two')
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise InputError(
            f'{place}: "answer" is {answer!r}; it must be the index of the right choice, 0 to {len(choices) - 1}'
        )
    return question, choices, answer


def evaluate_choices(
    model: Transformer,
    questions: Sequence[Question],
    name: str,
    *,
    batch_tokens: int = BATCH_TOKENS,
    samples: int = 1000,
    seed: int = 0,
    progress: Callable[[float], None] | Progress = None,
) -> dict[str, Any]:
    """Measure how often the right choice is the likeliest, with 95% intervals by a bootstrap over questions.

    Args:
        model: The model.
        questions: The questions, from `read_questions`.
        name: The name of the questions in results.
        batch_tokens: The number of tokens in a batch; see `score`.
        samples: The number of bootstrap samples; see `bpe.analysis.bootstrap`.
        seed: The seed of the bootstrap.
        progress: True shows the progress on a terminal or in a notebook, and a stream there. A callback is called with
            the finished share of the work, from 0 to 1.

    Returns:
        A dictionary with "name", "questions", "chance" (the accuracy of guessing), and three accuracies with intervals
        (None for fewer than 10 questions): "accuracy" compares the log-likelihoods of choices, "accuracy_per_token"
        divides them by the number of tokens, and "accuracy_per_byte" by the number of bytes. Among equal choices the
        first wins. "answers" has for each question "log_likelihoods" (nats), "tokens" and "bytes" of its choices, and
        "answer".

    Raises:
        InputError: When the loss of a token is not finite.
    """
    everything = [window for question in questions for window in question.choices]
    total = sum(window.size for window in everything)
    with shown(progress), reported(f"evaluating {name}", total, progress) as told:
        scores = [each.nats.sum() for each in score(model, everything, batch_tokens, told)]
    sums = iter(scores)
    answers, right = [], []
    for question in questions:
        likelihoods = [-float(next(sums)) for _ in question.choices]
        tokens = [window.predicted for window in question.choices]
        answers.append(
            {
                "answer": question.answer,
                "log_likelihoods": likelihoods,
                "tokens": tokens,
                "bytes": list(question.bytes),
            }
        )
        norms = np.array([[1] * len(tokens), tokens, question.bytes])
        right.append(np.argmax(np.array(likelihoods) / norms, axis=1) == question.answer)
    counts = np.array(right, np.int64).T  # [3: plain, per token, per byte; questions]
    drawn = draw_sums(counts, samples, seed)
    found: dict[str, Any] = {
        "name": name,
        "questions": len(questions),
        "chance": float(np.mean([1 / len(question.choices) for question in questions])),
    }
    for row, key in enumerate(ACCURACIES):
        found[key] = int(counts[row].sum()) / len(questions)
        found[f"{key}_interval"] = None if drawn is None else middle_95(drawn[:, row] / len(questions))
    return found | {"answers": answers}


ACCURACIES = ("accuracy", "accuracy_per_token", "accuracy_per_byte")


def choices_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """Return the results of `evaluate_choices` for several files as a table."""
    header = ("choices", "questions", "chance", "accuracy", "95%", "per token", "95%", "per byte", "95%")
    rows = []
    for row in found:
        cells = [[percent(row[key]), interval_text(row[f"{key}_interval"], ".1%")] for key in ACCURACIES]
        rows.append([row["name"], f"{row['questions']:,}", percent(row["chance"]), *cells[0], *cells[1], *cells[2]])
    return Table("Multiple choice", header, rows, importance=(3, 2, 4, 1, 5, 7, 6, 8))
