"""Speculative decoding: whatever is proposed, the texts are those that the model generates without proposals."""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from bpe.errors import InputError
from model import Generation, ModelConfig, Sampling, Session, Transformer
from model.generation import decoding
from model.generation.decoding import GeneratedToken
from model.generation.pace import Pace
from model.generation.sampling import Penalties, candidates, log_softmax, sample, top
from model.generation.speculation import Speculation, Speculator
from support.native_models import native, quantized
from support.toy_sequences import ToySequences, logits_of, toy_model

VOCABULARY = 12
Texts = dict[int, list[GeneratedToken]]


@cache
def toy_logits(text: tuple[int, ...], vocabulary: int) -> Any:
    return logits_of(text, vocabulary)


class QuickSequences(ToySequences):
    """Sequences of a toy model that compute the logits of a text once, and reserve memory themselves."""

    def read(self, parts: Sequence[Any]) -> Any:
        self.calls.append([*parts])
        rows = []
        for part in parts:
            text = self.texts[part.sequence]
            text += part.ids
            ends = range(len(text) - part.wanted + 1, len(text) + 1)
            rows += [toy_logits(tuple(text[:end]), self.vocabulary) for end in ends]
        return np.array(rows, np.float32).reshape(-1, self.vocabulary)


class Guesses:
    """A proposer that knows the texts, and is wrong with some probability."""

    def __init__(self, texts: Callable[[int, Sequence[int]], Sequence[int]], wrong: float, seed: int = 0) -> None:
        self.priors = dict.fromkeys(range(20), 0.5)
        self._rest, self._wrong, self._random = texts, wrong, random.Random(seed)
        self._texts: dict[int, list[int]] = {}

    def start(self, text: int, ids: Sequence[int]) -> None:
        self._texts[text] = [*ids]

    def add(self, text: int, id: int) -> None:
        self._texts[text].append(id)

    def outlook(self, text: int, most: int) -> list[int]:
        return list(range(self._random.randint(0, most)))

    def propose(self, counts: Mapping[int, int]) -> dict[int, list[int]]:
        return {
            text: [
                self._random.randrange(VOCABULARY) if self._random.random() < self._wrong else id
                for id in self._rest(text, self._texts[text])[:count]
            ]
            for text, count in counts.items()
        }

    def end(self, text: int) -> None:
        del self._texts[text]


def use_toys(monkeypatch: pytest.MonkeyPatch, proposer: Any = None) -> list[QuickSequences]:
    """Let speculation compute with toys, and propose with this proposer, always as much as it can."""
    made: list[QuickSequences] = []

    def new_sequences(model: Any, count: int) -> QuickSequences:
        made.append(QuickSequences(count, model.config.vocab_size))
        return made[-1]

    monkeypatch.setattr(decoding, "new_sequences", new_sequences)
    if proposer is not None:
        kept = Speculator(Speculation(adaptive=False), proposer, Pace(8, adaptive=False))
        monkeypatch.setattr(Speculator, "of", lambda *arguments: kept)
    return made


def plain(
    prompts: list[list[int]],
    samples: int,
    max_tokens: int,
    sampling: Sampling,
    end_ids: set[int],
    n_vocab: int,
    logprobs: int | None,
    context: int,
) -> Texts:
    """Return the texts that the toy model generates, one token at a time."""
    texts: Texts = {}
    for row in range(len(prompts) * samples):
        prompt = prompts[row // samples]
        ids, penalties = list(prompt), Penalties(sampling, [prompt], n_vocab)
        generator = random.Random(((sampling.seed or 0) + row % samples) % 2**64)
        room = min(max_tokens, context - len(prompt))
        for step in range(room):
            logits = toy_logits(tuple(ids), VOCABULARY)[:n_vocab]
            (id,) = sample(penalties.apply(logits[None]), sampling, [generator.random()])
            penalties.update([id])
            ids.append(id)
            normalised = log_softmax(logits)
            finish: Any = "end" if id in end_ids else "length" if step + 1 == room else None
            logprob = None if logprobs is None else float(normalised[id])
            token = GeneratedToken(row, id, logprob, top(normalised, logprobs or 0), finish)
            texts.setdefault(row, []).append(token)
            if finish:
                break
    return texts


def random_case(choose: random.Random) -> dict[str, Any]:
    n_vocab = choose.choice([VOCABULARY, VOCABULARY - 3])
    return {
        "prompts": [choose.choices(range(VOCABULARY), k=choose.randint(1, 6)) for _ in range(choose.randint(1, 4))],
        "samples": choose.choice([1, 1, 3]),
        "max_tokens": choose.choice([1, 2, 9, 100]),
        "end_ids": set(choose.sample(range(n_vocab), choose.choice([0, 1]))),
        "n_vocab": n_vocab,
        "logprobs": choose.choice([None, 0, 3]),
        "sampling": Sampling(
            temperature=choose.choice([0, 0.8, 1.5]),
            top_k=choose.choice([None, 3]),
            top_p=choose.choice([None, 0.9]),
            min_p=choose.choice([None, 0.05]),
            repetition_penalty=choose.choice([1.0, 1.3]),
            frequency_penalty=choose.choice([0.0, 0.5]),
            presence_penalty=choose.choice([0.0, 0.5]),
            logit_bias=choose.choice([{}, {1: 2.0, 2: -math.inf}]),
            seed=choose.choice([0, 7, 2**63]),
        ),
    }


def rows_of(generation: Generation) -> Texts:
    rows: Texts = {}
    for tokens in generation:
        assert [token.row for token in tokens] == sorted({token.row for token in tokens})
        for token in tokens:
            rows.setdefault(token.row, []).append(token)
    return rows


@pytest.mark.parametrize("seed", range(60))
def test_texts_are_the_same_whatever_is_proposed(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = random.Random(seed)
    case, context = random_case(choose), 24
    expected = plain(**case, context=context)
    wrong = choose.choice([0.0, 0.3, 1.0])

    def rest(row: int, ids: Sequence[int]) -> list[int]:
        done = len(ids) - len(case["prompts"][row // case["samples"]])
        return [token.id for token in expected[row][done:]] + [choose.randrange(VOCABULARY) for _ in range(9)]

    use_toys(monkeypatch, Guesses(rest, wrong, seed))
    generation = Generation(toy_model(context, VOCABULARY), **case, speculation=Speculation(adaptive=False))  # type: ignore[arg-type]
    assert rows_of(generation) == expected
    counts = generation.speculated
    assert counts.accepted <= counts.proposed
    if not wrong:  # every proposal that was not cut off is accepted
        assert counts.accepted == counts.proposed
    assert counts.tokens == sum(map(len, expected.values())) - len(expected)


def test_right_proposals_save_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    case = {**random_case(random.Random(3)), "prompts": [[1, 2], [3]], "samples": 1, "max_tokens": 17, "end_ids": set()}
    expected = plain(**case, context=64)

    class All(Guesses):
        def outlook(self, text: int, most: int) -> list[int]:
            return list(range(min(most, 7)))

    def rest(row: int, ids: Sequence[int]) -> list[int]:
        return [token.id for token in expected[row][len(ids) - len(case["prompts"][row]) :]]

    made = use_toys(monkeypatch, All(rest, 0))
    generation = Generation(toy_model(64, VOCABULARY), **case, speculation=Speculation(adaptive=False))  # type: ignore[arg-type]
    assert rows_of(generation) == expected
    (sequences,) = made
    # The prompts, then 8 tokens of each text in each of two calls: 7 proposals, and the one that follows them.
    assert [[(part.sequence, part.wanted) for part in call] for call in sequences.calls[1:]] == [[(0, 8), (1, 8)]] * 2
    assert generation.speculated.tokens_per_call == 8


def test_drawn_texts_have_the_exact_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pearson's chi-square over all texts of three tokens, beyond which one in 10,000 tests would fail."""
    count, length, vocabulary = 1000, 3, 3
    sampling = Sampling(temperature=1.2, top_p=0.97, seed=5)
    exact: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(length):
        longer = {}
        for text, probability in exact.items():
            probabilities, ids = candidates(toy_logits((1, *text), vocabulary), sampling)
            longer |= {(*text, id): probability * p for id, p in zip(ids.tolist(), probabilities.tolist(), strict=True)}
        exact = longer
    guesses = Guesses(lambda text, ids: [text % vocabulary, 1, 2, 3, 0, 1, 2, 3], 0.0)
    use_toys(monkeypatch, guesses)
    generation = Generation(
        toy_model(16, vocabulary),  # type: ignore[arg-type]
        [[1]],
        samples=count,
        max_tokens=length,
        sampling=sampling,
        speculation=Speculation(adaptive=False),
    )
    found = Counter(tuple(token.id for token in text) for text in rows_of(generation).values())
    assert not set(found) - {text for text, probability in exact.items() if probability > 0}
    likely = {text: probability * count for text, probability in exact.items() if probability * count >= 5}
    rest = count - sum(likely.values())
    groups = [*((found[text], expected) for text, expected in likely.items())]
    groups.append((count - sum(found[text] for text in likely), rest))
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in groups if expected > 1)
    freedom = len(groups) - 1
    # The quantile of 1 - 1e-4 by Wilson and Hilferty (1931).
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 3.72 * math.sqrt(2 / (9 * freedom))) ** 3
    assert 0.05 < generation.speculated.accepted_share < 0.95


def test_a_session_keeps_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    made = use_toys(monkeypatch)
    model: Any = toy_model(64, VOCABULARY)
    model.new_cache = lambda *arguments: None
    session = Session(model)
    speculation = Speculation(adaptive=False)
    case = {**random_case(random.Random(1)), "samples": 1, "max_tokens": 6, "end_ids": set(), "n_vocab": VOCABULARY}
    prompt = [1, 2, 3, 1, 2]
    for turn in range(3):
        case["prompts"] = [prompt]
        expected = plain(**case, context=64)
        assert rows_of(Generation(model, **case, session=session, speculation=speculation)) == expected
        read = [part for call in made[0].calls for part in call]
        if turn:  # what the last answer's last token and the new turn have, without the proposals that were wrong
            assert len(read[0].ids) == 4
        made[0].calls.clear()
        prompt = [*prompt, *(token.id for token in expected[0]), 4, 5, 6]
    assert len(made) == 1


def test_a_text_that_is_dropped_ends_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    case = {**random_case(random.Random(3)), "prompts": [[1], [2], [3]], "samples": 1, "max_tokens": 12}
    case["end_ids"] = set()
    expected = plain(**case, context=64)
    use_toys(monkeypatch, Guesses(lambda row, ids: [token.id for token in expected[row][len(ids) - 1 :]], 0.2))
    generation = Generation(toy_model(64, VOCABULARY), **case, speculation=Speculation(adaptive=False))  # type: ignore[arg-type]
    found: Texts = {}
    for tokens in generation:
        for token in tokens:
            found.setdefault(token.row, []).append(token)
            if token.row == 1 and len(found[1]) == 5:
                generation.drop(1)
    assert found == {**expected, 1: expected[1][:5]}


SMALL = ModelConfig(dim=64, n_layers=3, n_heads=2, n_kv_heads=1, hidden_dim=96, vocab_size=40, max_seq_len=48)


@pytest.fixture(scope="module")
def small() -> Transformer:
    """A model whose texts repeat, and whose first layer is often right about the next token."""
    torch.manual_seed(2)
    model = Transformer(SMALL)
    with torch.no_grad():
        for layer in model.layers[1:]:
            layer.attention.wo.weight *= 0.1
            layer.feed_forward.w2.weight *= 0.1
        model.output.weight *= 4
    return model


def speculations(small: Transformer, backend: str) -> dict[str, Speculation]:
    first = Transformer(dataclasses.replace(SMALL, n_layers=1))
    first.load_state_dict({name: small.state_dict()[name] for name in first.state_dict()})
    draft = {"torch": lambda: first, "float32": lambda: native(first), "Q8_0": lambda: quantized(first, "Q8_0")}
    return {
        "ngram": Speculation(),
        "layers": Speculation(layers=1, adaptive=False, most=5),
        "draft": Speculation(draft=draft[backend](), adaptive=False, most=5),
    }


@pytest.mark.parametrize("backend", ["torch", "float32", "Q8_0"])
def test_all_models_generate_the_same_texts_with_proposals(backend: str, small: Transformer) -> None:
    model: Any = {"torch": lambda: small, "float32": lambda: native(small), "Q8_0": lambda: quantized(small, "Q8_0")}[
        backend
    ]()
    for by, speculation in speculations(small, backend).items():
        for temperature in (0, 0.7):
            case: dict[str, Any] = {
                "prompts": [[1, 2, 3, 1, 2, 3], [7], [5, 6] * 8],
                "samples": 2 if by == "layers" else 1,
                "max_tokens": 40,  # the third text reaches the end of the context
                "sampling": Sampling(temperature=temperature, repetition_penalty=1.1, seed=3),
                "end_ids": {9} if temperature else (),
            }
            expected = rows_of(Generation(model, **case))
            generation = Generation(model, **case, speculation=speculation)
            assert rows_of(generation) == expected
            assert by == "ngram" or generation.speculated.accepted > 0
            assert temperature or expected[max(expected)][-1].finish == "length"


@pytest.mark.parametrize("by", ["ngram", "layers", "draft"])
def test_a_session_may_begin_and_end_to_speculate(by: str, small: Transformer) -> None:
    model = native(small)
    speculation = speculations(small, "float32")[by]
    session, plain = Session(model), Session(model)
    prompt = [1, 2, 3]
    for speculates in (False, True, True, False, True):
        answers = []
        for kept, proposing in ((session, speculation if speculates else None), (plain, None)):
            generation = Generation(
                model,
                [prompt],
                max_tokens=6,
                sampling=Sampling(temperature=0),
                session=kept,
                speculation=proposing,
            )
            answers.append([token.id for tokens in generation for token in tokens])
        assert answers[0] == answers[1]
        assert session.ids == prompt + answers[0][:-1]
        prompt = [*prompt, *answers[0], 4, 5]


def test_an_answer_that_was_stopped_leaves_the_session_right(small: Transformer) -> None:
    model = native(small)
    session = Session(model)
    speculation = Speculation(layers=1, adaptive=False)
    iterator = iter(
        Generation(model, [[1, 2]], sampling=Sampling(temperature=0), session=session, speculation=speculation)
    )
    begun = [next(iterator)[0].id for _ in range(5)]
    prompt = [1, 2, *begun[:4], 8]
    case: dict[str, Any] = {"max_tokens": 9, "sampling": Sampling(temperature=0)}
    expected = rows_of(Generation(model, [prompt], **case))
    assert rows_of(Generation(model, [prompt], **case, session=session, speculation=speculation)) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"most": 0}, "most is 0; it must be at least 1"),
        ({"draft_tokenizer": "any"}, "draft_tokenizer has no effect without draft"),
        ({"layers": 0}, "layers is 0; it must be at least 1"),
        ({"layers": 1, "draft": toy_model()}, "draft and layers exclude each other"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Speculation(**settings)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rotations_that_follow_the_length_are_refused(kind: str) -> None:
    model: Any = toy_model()
    scaling: Any = {"rope_scaling": kind, "rope_original_length": 16}
    if kind == "longrope":
        scaling |= {"rope_short_factors": (1.0,) * 4, "rope_long_factors": (2.0,) * 4}
    model.config = dataclasses.replace(model.config, **scaling)
    with pytest.raises(InputError, match=f"speculation does not work with rope_scaling '{kind}'"):
        Generation(model, [[1]], speculation=Speculation())


def test_all_layers_are_no_draft() -> None:
    model: Any = toy_model()
    with pytest.raises(InputError, match="layers is 1, but the model has 1; give fewer"):
        Generation(model, [[1]], speculation=Speculation(layers=1))


def test_a_model_is_not_its_own_draft() -> None:
    model: Any = toy_model()
    with pytest.raises(InputError, match="the draft model is the model itself"):
        Generation(model, [[1]], speculation=Speculation(draft=model))
