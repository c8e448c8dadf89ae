"""Several texts at once: ends, stop strings, log-probabilities, streaming and memory."""

from __future__ import annotations

import codecs
import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpe.errors import InputError
from model import Completions, KVCache, ModelConfig, Sampling, Transformer, complete, generate
from model.generation import sampling as array_sampling
from model.generation import tensor_sampling

END = 257


class Scripts(Transformer):
    """A model that generates scripts: the first token of a prompt is the number of its script.

    It reads this number from the cache, so a test fails if rows of the cache are mixed up.
    """

    def __init__(self, config: ModelConfig, scripts: list[list[int]], lengths: dict[int, int] | None = None) -> None:
        super().__init__(config)
        self.scripts = scripts
        self.lengths = lengths or {}  # the lengths of prompts with more than one token

    def forward(self, ids: torch.Tensor, cache: Any, *, positions: Any = None, last_only: bool = False) -> torch.Tensor:
        start, end = cache.length, cache.length + ids.shape[1]
        cache.reserve(ids.shape[1], positions)
        read = cache._keys[0][:, 0, :end, 0]
        read[:, start:] = ids if positions is None else torch.where(positions < 0, -1, ids)
        cache.advance(ids.shape[1])
        logits = torch.full((len(ids), 1, self.config.vocab_size), -20.0)
        for row, slots in enumerate(read.int().tolist()):
            first, *rest = (id for id in slots if id >= 0)
            place, script = len(rest) + 1 - self.lengths.get(first, 1), self.scripts[first]
            logits[row, 0, script[place] if place < len(script) else END] = 20.0
        return logits


CONFIG = ModelConfig(dim=8, n_layers=1, n_heads=1, hidden_dim=8, vocab_size=259, max_seq_len=80)


def expected_of(script: list[int], stops: list[str], max_tokens: int) -> tuple[str, str]:
    """Return the text and why it ends, by searching the whole text for stop strings after each token."""
    for count in range(1, min(max_tokens, len(script)) + 1):
        whole_characters = codecs.getincrementaldecoder("utf-8")("replace").decode(bytes(script[:count]))
        if found := up_to_stop(whole_characters, stops):
            return found
    text = bytes(script[:max_tokens]).decode(errors="replace")
    return up_to_stop(text, stops) or (text, "end" if max_tokens > len(script) else "length")


def up_to_stop(text: str, stops: list[str]) -> tuple[str, str] | None:
    for end in range(len(text) + 1):
        if starts := [end - len(stop) for stop in stops if text[:end].endswith(stop)]:
            return text[: min(starts)], "stop"
    return None


letters = st.text("abé€😀", max_size=12).map(lambda text: list(text.encode()))
scripts = st.lists(
    letters | st.lists(st.sampled_from([*b"ab", 0xE2, 0x82, 0xAC, 0xFF]), max_size=9), min_size=1, max_size=4
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scripts=scripts,
    stops=st.lists(st.text("abé€\ufffd", min_size=1, max_size=4), max_size=3),
    max_tokens=st.integers(0, 12),
)
def test_texts_end_at_stop_strings_without_any_part_of_them(
    tokenizer: Any, scripts: list[list[int]], stops: list[str], max_tokens: int
) -> None:
    model, prompts = Scripts(CONFIG, scripts), [[row] for row in range(len(scripts))]
    expected = [expected_of(script, stops, max_tokens) for script in scripts]
    completions = Completions(model, tokenizer, prompts, max_tokens, stop=stops, temperature=0)
    pieces = [""] * len(prompts)
    for text, piece in completions:
        pieces[text.prompt] += piece
        assert expected[text.prompt][0].startswith(
            pieces[text.prompt]
        )  # nothing is yielded that a stop string removes later
    assert [(text.text, text.finish) for text in completions.texts] == expected
    assert pieces == [text for text, _ in expected]
    assert "".join(generate(model, tokenizer, [0], max_tokens, stop=stops, temperature=0)) == pieces[0]


def test_prompts_of_different_lengths_end_independently(tokenizer: Any) -> None:
    model = Scripts(CONFIG, [list(b"one"), list(b"fourteen stop more"), list(b"x" * 100)], {1: 3, 2: 2})
    texts = complete(model, tokenizer, [[0], [1, 9, 9], [2, 9]], 30, stop="stop", temperature=0)
    assert [(text.text, text.finish, text.prompt) for text in texts] == [
        ("one", "end", 0), ("fourteen ", "stop", 1), ("x" * 30, "length", 2),
    ]  # fmt: skip
    assert texts[0].ids == [*b"one", END]


def test_log_probabilities_are_those_of_the_model_before_sampling(model: Transformer, tokenizer: Any) -> None:
    prompts = [[1, 2, 3], [4], [5, 6]]
    texts = complete(
        model, tokenizer, prompts, 10, samples=2, logprobs=3, end_ids=(), temperature=1.2, seed=0,
        repetition_penalty=2.0, logit_bias={65: 3.0},
    )  # fmt: skip
    for text in texts:
        prompt = prompts[text.prompt]
        logits = model(torch.tensor([prompt + text.ids]))[0].detach().double()
        normalised = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        for step, id in enumerate(text.ids):
            assert text.logprobs[step] == pytest.approx(normalised[step, id].item(), abs=1e-4)
            values, ids = normalised[step].topk(3)
            assert [id for id, _ in text.top_logprobs[step]] == ids.tolist()
            assert [value for _, value in text.top_logprobs[step]] == pytest.approx(values.tolist(), abs=1e-4)
        assert len(text.ids) == len(text.logprobs) == len(text.top_logprobs) == 10


def test_each_sample_is_the_text_of_its_own_seed(model: Transformer, tokenizer: Any) -> None:
    prompts = ["a", "longer", "bc"]
    together = complete(model, tokenizer, prompts, 12, samples=3, seed=40, temperature=1.5)
    for number, text in enumerate(together):
        alone = complete(model, tokenizer, [prompts[number // 3]], 12, seed=40 + number % 3, temperature=1.5)
        assert alone[0].ids == text.ids


def test_ids_without_a_token_are_skipped(tokenizer: Any) -> None:
    tokenizer.special_tokens_set = {"<|end_of_text|>"}
    tokenizer.special = {"<|end_of_text|>": 257}
    assert complete(Scripts(CONFIG, [[97, 258, 98]]), tokenizer, [[0]], temperature=0)[0].text == "ab"


def test_no_prompts_and_no_tokens_give_no_text(model: Transformer, tokenizer: Any) -> None:
    assert complete(model, tokenizer, []) == []
    assert [(text.text, text.finish) for text in complete(model, tokenizer, ["a", "b"], 0)] == [("", "length")] * 2


def test_a_single_text_instead_of_a_list_raises(model: Transformer, tokenizer: Any) -> None:
    with pytest.raises(InputError, match=r"prompts is .Once.; expected a list, such as \[.Once.\]"):
        complete(model, tokenizer, "Once")


def test_closing_the_stream_frees_the_cache(
    model: Transformer, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[KVCache]] = []
    new_cache = Transformer.new_cache

    def noted(*arguments: Any) -> KVCache:
        cache = new_cache(*arguments)
        made.append(weakref.ref(cache))
        return cache

    monkeypatch.setattr(Transformer, "new_cache", noted)
    stream: Any = generate(model, tokenizer, "abc", temperature=0, end_ids=(), logit_bias={97: 1000.0})
    assert next(stream) == "a"
    assert made[0]() is not None
    stream.close()
    gc.collect()
    assert made[0]() is None


def test_many_prompts_need_memory_for_their_tokens_only(model: Transformer, tokenizer: Any) -> None:
    widest = 0

    def note(_: Any, arguments: Any) -> None:
        nonlocal widest
        widest = max(widest, arguments[0].shape[0] * arguments[0].shape[1])

    model.layers[0].register_forward_pre_hook(note)
    complete(model, tokenizer, [[65] * 60] * 100, 1)
    assert widest <= 2048


# --- penalties ---


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.floats(-50, 50, width=32), min_size=6, max_size=6),
    st.lists(st.integers(0, 5), max_size=8),
    st.lists(st.integers(0, 5), max_size=8),
    st.floats(0.1, 5),
    st.floats(-2, 2),
    st.floats(-2, 2),
    st.dictionaries(st.integers(0, 5), st.floats(-50, 50, width=32) | st.just(-float("inf"))),
)
def test_penalties_match_their_definitions(
    logits: list[float],
    prompt: list[int],
    answer: list[int],
    repetition: float,
    frequency: float,
    presence: float,
    bias: dict[int, float],
) -> None:
    sampling = Sampling(
        repetition_penalty=repetition, frequency_penalty=frequency, presence_penalty=presence, logit_bias=bias
    )
    tensors = tensor_sampling.Penalties(sampling, [[0, 9], prompt], 6, "cpu")  # 9 has no logit
    arrays = array_sampling.Penalties(sampling, [[0, 9], prompt], 6)
    for id in answer:
        tensors.update(torch.tensor([0, id]))
        arrays.update([0, id])
    tensors.select(torch.tensor([1]))
    arrays.select([1])
    given = np.array([logits], np.float32)
    (found,) = tensors.apply(torch.tensor([logits])).double().tolist()
    np.testing.assert_array_equal(arrays.apply(given), np.array([found], np.float32))
    assert given.tolist() == [logits]
    for id, logit in enumerate(logits):
        logit += bias.get(id, 0.0)
        if id in prompt or id in answer:
            logit = logit * repetition if logit < 0 else logit / repetition
        logit -= frequency * answer.count(id) + presence * (id in answer)
        assert found[id] == pytest.approx(logit, rel=1e-5, abs=1e-4)


def test_a_bias_beyond_float32_raises() -> None:
    for bias in (float("nan"), float("inf"), 1e39):
        with pytest.raises(InputError, match="logit_bias of 3"):
            Sampling(logit_bias={3: bias})


def test_banning_all_tokens_raises(model: Transformer, tokenizer: Any) -> None:
    with pytest.raises(InputError, match="logit_bias bans all"):
        complete(model, tokenizer, ["a"], logit_bias=dict.fromkeys(range(259), -float("inf")))
