"""TODO: choices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bpe import Tokenizer
from bpe.analysis.bootstrap import draw, middle, shown
from bpe.analysis.tables import Table, percent
from bpe.corpus import records
from bpe.corpus.feed import as_bytes
from bpe.errors import InputError
from model.evaluation.windows import BATCH_TOKENS, Window, score
from model.generation.completions import prompt_ids
from model.transformer import Transformer


class Question(NamedTuple):
    """A question with several choices, each behind the question."""

    choices: Sequence[Window]
    bytes: Sequence[int]
    """Of each choice."""
    answer: int
    """Which choice is right, from 0."""


def read_questions(tokenizer: Tokenizer, source: str, context: int, delimiter: str = " ") -> list[Question]:
    """The questions in files of JSON lines: {"question": text, "choices": [text, ...], "answer": index from 0}.

    A choice is what follows the question and the delimiter: the tokens that the two have together, behind those that
    they share with the tokens of the question alone. Both are ordinary text.

    context: how many tokens the model can read.

    Raises InputError, with file and line, for what is no such question and for one that the context does not hold.
    """
    questions = []
    begin = prompt_ids(tokenizer, "")
    for place, record in records(source):
        question, choices, answer = _question(record, place)
        alone = begin + tokenizer.encode_ordinary(question)
        choice_windows = []
        for number, choice in enumerate(choices):
            ids = begin + tokenizer.encode_ordinary(question + delimiter + choice)
            shared = next((at for at, (a, b) in enumerate(zip(alone, ids, strict=False)) if a != b), len(alone))
            if not 0 < shared < len(ids):
                missing = "token before it" if shared == 0 else "token of its own"
                raise InputError(f"{place}: choice {number} has no {missing}, so nothing can be predicted")
            if len(ids) - 1 > context:
                raise InputError(
                    f"{place}: the question with choice {number} has {len(ids):,} tokens, and the model's context holds"
                    f" {context:,}; shorten it"
                )
            choice_windows.append(Window(ids, len(ids) - shared))
        sizes = [len(as_bytes(choice)) for choice in choices]
        questions.append(Question(choice_windows, sizes, answer))
    if not questions:
        raise InputError(f"{source}: no questions; write one in each line")
    return questions


def _question(record: Mapping[str, Any], place: str) -> tuple[str, list[str], int]:
    question, choices, answer = (record.get(key) for key in ("question", "choices", "answer"))
    if not isinstance(question, str):
        raise InputError(f'{place}: no text under "question"')
    if not isinstance(choices, list) or not all(isinstance(choice, str) and choice for choice in choices):
        raise InputError(f'{place}: "choices" is not a list of texts, none of them empty')
    if len(choices) < 2:
        raise InputError(f'{place}: {len(choices)} in "choices"; there is nothing to choose among fewer than two')
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise InputError(
            f'{place}: "answer" is {answer!r}; it is the index of the right choice, 0 to {len(choices) - 1}'
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
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """How often the right choice is the likeliest, with 95% intervals by the bootstrap over questions.

    Arguments as those of `evaluate_texts`.

    Returns:
        "name", "questions", "chance" (the accuracy of guessing), and three accuracies with their intervals (None for
        fewer than 10 questions): "accuracy" by the likelihood of a choice, "accuracy_per_token" by that of its tokens
        on average, and "accuracy_per_byte" by that over the bytes of the choice. Of equal choices the first counts.
        "answers": of each question its "log_likelihoods" (nats), "tokens" and "bytes", by choice, and its "answer".
    """
    everything = [window for question in questions for window in question.choices]
    total = sum(window.size for window in everything)
    told = None if progress is None else lambda done, _: progress(done / total)
    scores = score(model, everything, batch_tokens, told)
    answers, right = [], []
    for question in questions:
        likelihoods = [-float(next(scores).nats.sum()) for _ in question.choices]
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
    counts = np.array(right, np.int64).T  # [raw, per token, per byte; questions]
    drawn = draw(counts, samples, seed)
    found: dict[str, Any] = {
        "name": name,
        "questions": len(questions),
        "chance": float(np.mean([1 / len(question.choices) for question in questions])),
    }
    for row, key in enumerate(ACCURACIES):
        found[key] = int(counts[row].sum()) / len(questions)
        found[f"{key}_interval"] = None if drawn is None else middle(drawn[:, row] / len(questions))
    return found | {"answers": answers}


ACCURACIES = ("accuracy", "accuracy_per_token", "accuracy_per_byte")


def choices_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """What `evaluate_choices` found for several files, as people read it."""
    header = ("choices", "questions", "chance", "accuracy", "95%", "per token", "95%", "per byte", "95%")
    rows = []
    for row in found:
        cells = [[percent(row[key]), shown(row[f"{key}_interval"], ".1%")] for key in ACCURACIES]
        rows.append([row["name"], f"{row['questions']:,}", percent(row["chance"]), *cells[0], *cells[1], *cells[2]])
    return Table("Multiple choice", header, rows)
