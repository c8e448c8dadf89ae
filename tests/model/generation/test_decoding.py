"""Generation against a simple oracle, which reads one whole text again for each token, without a cache."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from bpe.errors import InputError
from model import Generation, KVCache, ModelConfig, Sampling, Session, Transformer, generate_ids
from model.generation.decoding import GeneratedToken
from model.generation.tensor_sampling import sample

model_generate = importlib.import_module("model.generation.decoding")
MakeModel = Callable[[ModelConfig], Transformer]


def penalized(logits: list[float], sampling: Sampling, prompt: list[int], answer: list[int]) -> list[float]:
    """Apply bias and penalties by their definitions, in float64."""
    changed = []
    for id, logit in enumerate(logits):
        logit += sampling.logit_bias.get(id, 0.0)
        if id in prompt or id in answer:
            logit = logit / sampling.repetition_penalty if logit > 0 else logit * sampling.repetition_penalty
        logit -= sampling.frequency_penalty * answer.count(id)
        changed.append(logit - sampling.presence_penalty * (id in answer))
    return changed


@torch.no_grad()
def oracle(
    model: Transformer,
    prompt: list[int],
    sampling: Sampling,
    sample_number: int,
    max_tokens: int,
    end_ids: set[int],
    n_vocab: int,
    logprobs: int | None,
) -> list[GeneratedToken]:
    """Return the tokens of one text, in row 0."""
    plain = Sampling(sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
    generator = random.Random(((sampling.seed or 0) + sample_number) % 2**64)
    tokens: list[GeneratedToken] = []
    for step in range(min(max_tokens, model.config.max_seq_len - len(prompt))):
        answer = [token.id for token in tokens]
        logits = model(torch.tensor([prompt + answer]))[0, -1, :n_vocab].double()
        (id,) = sample(
            torch.tensor([penalized(logits.tolist(), sampling, prompt, answer)]), plain, [generator.random()]
        ).tolist()
        normalised = logits.log_softmax(-1)
        top = normalised.topk(logprobs or 0)
        full = step + 1 == min(max_tokens, model.config.max_seq_len - len(prompt))
        finish = "end" if id in end_ids else "length" if full else None
        pairs = list(zip(top.indices.tolist(), top.values.tolist(), strict=True))
        tokens.append(GeneratedToken(0, id, None if logprobs is None else normalised[id].item(), pairs, finish))
        if finish:
            break
    return tokens


def rows_of(generation: Generation) -> dict[int, list[GeneratedToken]]:
    rows: dict[int, list[GeneratedToken]] = {}
    for tokens in generation:
        assert [token.row for token in tokens] == sorted({token.row for token in tokens})
        for token in tokens:
            rows.setdefault(token.row, []).append(token)
    return rows


def random_case(choose: random.Random, config: ModelConfig) -> dict[str, Any]:
    n_vocab = choose.choice([config.vocab_size, config.vocab_size - 9, 5])
    longest = choose.choice([3, 8, config.max_seq_len - 1])
    count = choose.randint(1, 6)
    ids = range(config.vocab_size)
    bias = {
        id: choose.choice([-2.0, 3.0, -float("inf")]) for id in choose.sample(range(1, n_vocab), choose.randint(0, 3))
    }
    return {
        "prompts": [choose.choices(ids, k=choose.randint(1, longest)) for _ in range(count)],
        "samples": choose.choice([1, 1, 2, 3]),
        "max_tokens": choose.choice([0, 1, 5, 20, 1000]),
        "end_ids": set(choose.sample(range(n_vocab), choose.choice([0, 1, 4]))),
        "n_vocab": n_vocab,
        "logprobs": choose.choice([None, 0, 4]),
        "sampling": Sampling(
            temperature=choose.choice([0, 0, 0.7, 1.3]),
            top_k=choose.choice([None, 1, 3, 1000]),
            top_p=choose.choice([None, 0.5, 0.95]),
            min_p=choose.choice([None, 0.1]),
            repetition_penalty=choose.choice([1.0, 1.0, 1.3, 0.8]),
            frequency_penalty=choose.choice([0.0, 0.0, 0.5]),
            presence_penalty=choose.choice([0.0, 0.0, 0.7, -0.4]),
            logit_bias=choose.choice([{}, bias]),
            seed=choose.choice([0, 7, 2**63]),
        ),
    }


def check(model: Transformer, case: dict[str, Any]) -> int:
    """Compare a case with the oracle; return the number of compared tokens."""
    compared = 0
    rows = rows_of(Generation(model, **case))
    rest = {name: case[name] for name in ("sampling", "max_tokens", "end_ids", "n_vocab", "logprobs")}
    for row in range(len(case["prompts"]) * case["samples"]):
        prompt, number = divmod(row, case["samples"])
        expected = oracle(model, case["prompts"][prompt], sample_number=number, **rest)
        found = rows.get(row, [])
        assert [(t.id, t.finish) for t in found] == [(t.id, t.finish) for t in expected], (row, case)
        for one, other in zip(found, expected, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
            assert [id for id, _ in one.top] == [id for id, _ in other.top]
            assert [value for _, value in one.top] == pytest.approx([value for _, value in other.top], abs=1e-4)
        compared += len(found)
    return compared


TINY = ModelConfig(dim=16, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=24, vocab_size=40, max_seq_len=32)


def test_each_row_matches_the_oracle(make_model: MakeModel) -> None:
    tiny, choose = make_model(TINY), random.Random(5)
    assert sum(check(tiny, random_case(choose, TINY)) for _ in range(60)) > 1000


def test_reading_long_prompts_in_chunks_changes_no_id(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny, choose = make_model(TINY), random.Random(6)
    for part in (1, 5, 40):
        monkeypatch.setattr(model_generate, "PREFILL", part)
        for _ in range(8):
            check(tiny, random_case(choose, TINY))


def test_growing_the_cache_changes_no_id(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_generate, "ROOM", 1)
    config = ModelConfig(dim=16, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=24, vocab_size=40, max_seq_len=160)
    prompts = [[3, 1, 4], [1], [5, 9, 2, 6, 5]]
    plain = {"sampling": Sampling(temperature=0), "end_ids": set(), "n_vocab": 40, "logprobs": None}
    check(make_model(config), {"prompts": prompts, "samples": 1, "max_tokens": 150, **plain})


# --- number of tokens read ---


class Counted(Transformer):
    """A model that records the shapes of its inputs, and can be interrupted before a given layer of a given pass."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.read: list[tuple[int, ...]] = []
        self.interrupt_at = -1
        self.layers[-1].register_forward_pre_hook(self._interrupt)

    def _interrupt(self, *_: Any) -> None:
        if len(self.read) - 1 == self.interrupt_at:
            self.interrupt_at = -1
            raise KeyboardInterrupt

    def forward(self, ids: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
        self.read.append(tuple(ids.shape))
        return super().forward(ids, *arguments, **named)


@pytest.fixture
def counted(config: ModelConfig, model: Transformer) -> Counted:
    counted = Counted(config)
    counted.load_state_dict(model.state_dict())
    return counted


def test_a_prompt_is_read_once_for_all_its_samples(counted: Counted) -> None:
    rows = rows_of(Generation(counted, [[5, 6, 7, 8]], samples=3, max_tokens=4, sampling=Sampling(seed=3)))
    assert counted.read == [(1, 4), (3, 1), (3, 1), (3, 1)]
    assert len(rows) == 3


def test_finished_rows_are_not_read(counted: Counted) -> None:
    prompts, greedy = [[1, 2, 3], [4], [5, 6]], Sampling(temperature=0)
    alone = [list(generate_ids(counted, prompt, max_tokens=6, temperature=0)) for prompt in prompts]
    counted.read.clear()
    generation = Generation(counted, prompts, max_tokens=6, sampling=greedy, end_ids={alone[1][2]})
    lengths = {row: len(tokens) for row, tokens in rows_of(generation).items()}
    assert [shape[0] for shape in counted.read[1:]] == [
        sum(length > step for length in lengths.values()) for step in range(1, max(lengths.values()))
    ]
    assert lengths[1] <= 3
    generation = Generation(counted, prompts, max_tokens=6, sampling=greedy)
    steps = iter(generation)
    next(steps)
    generation.drop(0)
    assert [token.row for token in next(steps)] == [1, 2]
    generation.drop(2)
    assert [[(token.row, token.id) for token in tokens] for tokens in steps] == [[(1, id)] for id in alone[1][2:]]


def test_a_generation_may_be_iterated_again(model: Transformer) -> None:
    generation = Generation(model, [[1, 2], [3]], max_tokens=5, sampling=Sampling(seed=1))
    first = list(generation)
    assert list(generation) == first
    assert generation.times.prefill_tokens == 3
    assert generation.times.decode_tokens == 8


def test_the_prompts_of_a_batch_share_the_chunk_size(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_generate, "PREFILL", 8)
    list(Generation(counted, [[1] * 10] * 4, max_tokens=1))
    assert counted.read == [(4, 2)] * 5


# --- sessions ---


def greedily(model: Transformer, prompt: list[int], session: Session | None = None, count: int = 4) -> list[int]:
    return list(generate_ids(model, prompt, max_tokens=count, temperature=0, session=session))


def tokens_read(counted: Counted) -> int:
    total = sum(batch * time for batch, time in counted.read)
    counted.read.clear()
    return total


def test_a_session_reads_only_new_tokens(counted: Counted) -> None:
    session, history = Session(counted), [1, 2, 3]
    for turn in range(4):
        expected = greedily(counted, history)
        tokens_read(counted)
        answer = greedily(counted, history, session)
        assert answer == expected
        # The last token of each answer is read in the next turn.
        assert tokens_read(counted) == (3 + 3 if turn == 0 else 1 + 2 + 3)
        assert session.ids == (history + answer)[:-1]
        assert session.cache.length == len(session.ids)
        history = history + answer + [50 + turn, 60]


def test_a_session_with_an_edited_history_reads_from_the_edit_on(counted: Counted) -> None:
    session = Session(counted)
    greedily(counted, [1, 2, 3, 4, 5, 6], session)
    for prompt, fresh in (([1, 2, 9, 4, 5, 6], 4), ([1, 2, 9], 1), ([8], 1), ([8], 1), ([8, 7, 6], 2)):
        expected = greedily(counted, prompt, count=1)
        tokens_read(counted)
        assert greedily(counted, prompt, session, count=1) == expected
        assert tokens_read(counted) == fresh


@pytest.mark.parametrize("reading", range(6))
@pytest.mark.parametrize("part", [4, 2048])
def test_an_interrupted_session_continues_correctly(
    counted: Counted, reading: int, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_generate, "PREFILL", part)
    prompt, session = list(range(10, 20)), Session(counted)
    greedily(counted, [10, 11, 12], session)
    expected = greedily(counted, prompt, count=8)
    counted.read.clear()
    counted.interrupt_at = reading
    with pytest.raises(KeyboardInterrupt):
        greedily(counted, prompt, session, count=8)
    assert session.ids == (prompt + expected)[: len(session.ids)]
    known = len(session.ids)
    counted.read.clear()
    assert greedily(counted, prompt, session, count=8) == expected
    assert sum(time for _, time in counted.read) == len(prompt) - min(known, len(prompt) - 1) + 7


def test_a_session_interrupted_between_layers_and_head_continues_correctly(counted: Counted) -> None:
    session, expected = Session(counted), greedily(counted, [1, 2, 3, 4])

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = counted.output.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        greedily(counted, [1, 2, 3, 4], session)
    handle.remove()
    assert greedily(counted, [1, 2, 3, 4], session) == expected


def test_a_cache_interrupted_while_growing_continues_correctly(
    model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    copy, allowed = KVCache._copy, [1]

    def interrupted(*arguments: Any) -> Any:
        if not allowed:
            raise KeyboardInterrupt
        allowed.pop()
        return copy(*arguments)

    for before in range(4):  # the number of tensors that have grown, of four
        cache = KVCache(model.config, capacity=2)
        with torch.no_grad():
            model(ids[:, :2], cache)
            allowed[:] = [1] * before
            monkeypatch.setattr(KVCache, "_copy", interrupted)
            with pytest.raises(KeyboardInterrupt):
                model(ids[:, 2:4], cache)
            monkeypatch.setattr(KVCache, "_copy", copy)
            torch.testing.assert_close(model(ids[:, 2:], cache), model(ids)[:, 2:], atol=1e-5, rtol=1e-5)


def test_a_session_continues_after_its_generator_was_closed_early(counted: Counted) -> None:
    session = Session(counted)
    stream = generate_ids(counted, [1, 2, 3], max_tokens=20, temperature=0, session=session)
    answer = [next(stream), next(stream)]
    stream.close()
    history = [1, 2, 3, *answer, 77]
    expected = greedily(counted, history)
    tokens_read(counted)
    assert greedily(counted, history, session) == expected
    assert tokens_read(counted) == 2 + 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 0}, "samples is 0"),
        ({"logprobs": -1}, "logprobs is -1"),
        ({"logprobs": 260}, "logprobs is 260"),
        ({"n_vocab": 260}, "n_vocab is 260"),
        ({"n_vocab": 0}, "n_vocab is 0"),
        ({"n_vocab": 100, "sampling": Sampling(logit_bias={100: 1.0})}, "logit_bias has the id 100.*0 to 99"),
        ({"sampling": Sampling(logit_bias={-1: 1.0})}, "logit_bias has the id -1"),
    ],
)
def test_arguments_out_of_range_raise_before_the_prompt_is_read(arguments: Any, message: str, counted: Counted) -> None:
    with pytest.raises(InputError, match=message):
        Generation(counted, [[1]], **arguments)


def test_a_session_is_for_one_text(model: Transformer) -> None:
    for prompts, samples in (([[1], [2]], 1), ([[1]], 2)):
        with pytest.raises(InputError, match="a session continues one text; give one prompt"):
            Generation(model, prompts, samples=samples, session=Session(model))


def test_no_prompts_give_no_tokens(model: Transformer) -> None:
    assert list(Generation(model, [])) == []


def test_any_whole_number_is_a_seed(model: Transformer) -> None:
    for seed in (-1, 2**64 - 1, 2**64, 10**30):
        assert len(list(generate_ids(model, [1], max_tokens=2, seed=seed))) == 2
