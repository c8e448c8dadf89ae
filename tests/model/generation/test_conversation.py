"""Conversations: the history, the reuse of the cache, and interrupted answers."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from bpe import InputError, Tokenizer
from bpe.chat import Llama3Chat
from bpe.progress import reporter_on, reporting
from model import ModelConfig, Speculation, Transformer, generate
from model.generation.conversation import Conversation
from support.references import BYTE_RANKS

SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


@pytest.fixture(scope="module")
def letters() -> Tokenizer:
    special = {name: 256 + number for number, name in enumerate(SPECIAL)}
    return Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=special)


@pytest.fixture(scope="module")
def llm() -> Transformer:
    torch.manual_seed(1)
    return Transformer(
        ModelConfig(dim=16, n_layers=2, n_heads=2, n_kv_heads=1, hidden_dim=24, vocab_size=261, max_seq_len=256)
    )


def conversation(llm: Transformer, letters: Tokenizer, **settings: Any) -> Conversation:
    settings = {"max_tokens": 12, "temperature": 0.8, "seed": 1, **settings}
    return Conversation(llm, letters, Llama3Chat(letters), **settings)


def read_tokens(llm: Transformer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the number of tokens that each forward pass reads."""
    counts: list[int] = []
    forward = llm.forward

    def counting(ids: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        counts.append(ids.shape[1])
        return forward(ids, *arguments, **options)

    monkeypatch.setattr(llm, "forward", counting)
    return counts


def test_an_answer_depends_on_the_whole_dialog(llm: Transformer, letters: Tokenizer) -> None:
    chat = conversation(llm, letters)
    chat.system = "S"
    for question in ("one", "two", "three"):
        before = [*chat.messages, {"role": "user", "content": question}]
        prompt = Llama3Chat(letters).encode(before)
        answer = "".join(chat.answer(question))
        assert answer == "".join(generate(llm, letters, prompt, 12, temperature=0.8, seed=1))
        assert chat.messages == [*before, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize("speculation", [Speculation(), Speculation(layers=1, adaptive=False, most=3)])
def test_proposals_change_no_answer_even_where_turns_are_forgotten(
    llm: Transformer, letters: Tokenizer, speculation: Speculation
) -> None:
    plain, speculating = (conversation(llm, letters, max_tokens=40, speculation=s) for s in (None, speculation))
    for question in ("one", "two", "three " * 9, "four"):
        assert "".join(speculating.answer(question)) == "".join(plain.answer(question))
        assert speculating.speculated.tokens
    assert speculating.messages == plain.messages
    assert speculating.forgotten == plain.forgotten > 0
    assert not plain.speculated.calls


def test_cached_tokens_are_not_read_again(
    llm: Transformer, letters: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = conversation(
        llm, letters, temperature=0.0, logit_bias={97: 100.0}
    )  # "aaaa...", which encodes to the same ids again
    "".join(chat.answer("one"))
    counts = read_tokens(llm, monkeypatch)
    "".join(chat.answer("two"))
    whole = len(Llama3Chat(letters).encode(chat.messages[:3]))
    assert chat.messages[1]["content"] == "a" * 12
    assert counts[0] < whole - len(Llama3Chat(letters).encode(chat.messages[:1], add_generation_prompt=False)) - 11


def test_a_closed_answer_stays_in_the_history_and_the_chat_continues(llm: Transformer, letters: Tokenizer) -> None:
    chat = conversation(llm, letters, logit_bias={97: 100.0})
    answer = chat.answer("one")
    assert next(answer) + next(answer) == "aa"
    answer.close()
    assert chat.messages[1:] == [{"role": "assistant", "content": "aa"}]
    assert "".join(chat.answer("two")) == "a" * 12


def test_a_chat_continues_correctly_after_an_interrupted_forward_pass(
    llm: Transformer, letters: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = conversation(llm, letters, logit_bias={97: 100.0})
    answer = chat.answer("one")
    next(answer)
    with monkeypatch.context() as patch:
        patch.setattr(llm.layers[1], "forward", lambda *a, **b: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            list(answer)
    assert chat.messages[1]["content"] == "a"
    fresh = conversation(llm, letters, logit_bias={97: 100.0})
    fresh.restore(chat.messages)
    assert "".join(chat.answer("two")) == "".join(fresh.answer("two"))


def test_a_failed_answer_leaves_the_history_unchanged(
    llm: Transformer, letters: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = conversation(llm, letters)
    answer = chat.answer("one")
    monkeypatch.setattr(llm, "forward", lambda *a, **b: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        list(answer)
    assert chat.messages == []


def test_reset_keeps_the_system_message_and_an_empty_one_removes_it(llm: Transformer, letters: Tokenizer) -> None:
    chat = conversation(llm, letters)
    chat.system = "Be brief."
    list(chat.answer("one"))
    chat.system = "Be long."
    assert [message["role"] for message in chat.messages] == ["system", "user", "assistant"]
    chat.reset()
    assert chat.messages == [{"role": "system", "content": "Be long."}]
    chat.system = ""
    assert chat.messages == [] and chat.system is None
    chat.reset()
    assert chat.messages == []


def test_a_message_beyond_the_context_raises_and_is_not_kept(llm: Transformer, letters: Tokenizer) -> None:
    chat = conversation(llm, letters)
    with pytest.raises(InputError, match=r"the message has 3\d\d tokens, but the model's context holds 256"):
        chat.answer("x" * 300)
    assert chat.messages == [] and chat.forgotten == 0
    assert not chat.is_full
    "".join(chat.answer("one"))
    before = list(chat.messages)
    chat.system = "S"
    with pytest.raises(InputError, match=r"the message has 3\d\d tokens with the system message, but"):
        chat.answer("x" * 300)
    assert chat.messages[1:] == before and chat.forgotten == 0


def test_without_forgetting_a_dialog_beyond_the_context_raises(llm: Transformer, letters: Tokenizer) -> None:
    chat = conversation(llm, letters, forget=False)
    for _ in range(2):
        "".join(chat.answer("x" * 60))
    before = list(chat.messages)
    with pytest.raises(InputError, match=r"the dialog has \d\d\d tokens, but the model's context holds 256"):
        chat.answer("x" * 100)
    assert chat.messages == before and chat.forgotten == 0


def test_is_full_after_an_answer_that_fills_the_context(llm: Transformer, letters: Tokenizer) -> None:
    chat = conversation(llm, letters, max_tokens=1000, logit_bias={97: 100.0})
    assert set("".join(chat.answer("x" * 200))) == {"a"}
    assert chat.is_full
    "".join(chat.answer("one"))
    chat.settings["max_tokens"] = 3
    assert "".join(chat.answer("two")) == "aaa"
    assert not chat.is_full


def tokens(letters: Tokenizer, messages: list[Any]) -> int:
    return len(Llama3Chat(letters).encode(messages))


def test_a_full_context_forgets_the_oldest_turns_and_keeps_the_system_message(
    llm: Transformer, letters: Tokenizer
) -> None:
    chat = conversation(llm, letters)
    chat.system = "Be brief."
    for number in range(12):
        before = [*chat.messages, {"role": "user", "content": f"question {number}"}]
        answer = "".join(chat.answer(f"question {number}"))
        read = [before[0], *before[1 + chat.forgotten :]]
        assert answer == "".join(generate(llm, letters, Llama3Chat(letters).encode(read), 12, temperature=0.8, seed=1))
        assert chat.messages == [*before, {"role": "assistant", "content": answer}]  # nothing is lost
        assert read[1]["role"] == "user"
        assert tokens(letters, read) + 12 <= 256
        assert chat.used == len(Llama3Chat(letters).encode([*read, chat.messages[-1]], add_generation_prompt=False))
    assert chat.forgotten > 0
    assert chat.context == 256


def test_forgetting_leaves_half_of_the_context_free_so_that_it_is_rare(llm: Transformer, letters: Tokenizer) -> None:
    chat = conversation(llm, letters)
    steps = []
    for number in range(30):
        before = chat.forgotten
        "".join(chat.answer(f"question {number:02d}"))
        if chat.forgotten > before:
            steps.append(number)
            assert tokens(letters, chat.messages[chat.forgotten : -1]) <= 128
            kept_more = chat.messages[chat.forgotten - 2 : -1]
            assert tokens(letters, kept_more) > 128  # no more than needed
    assert len(steps) >= 3
    assert min(after - before for before, after in zip(steps, steps[1:], strict=False)) >= 2


def test_between_two_steps_of_forgetting_the_cache_is_reused(
    llm: Transformer, letters: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = conversation(llm, letters, temperature=0.0, logit_bias={97: 100.0})
    while not chat.forgotten:
        "".join(chat.answer("one"))
    counts = read_tokens(llm, monkeypatch)
    before = chat.forgotten
    "".join(chat.answer("two"))
    assert chat.forgotten == before
    assert counts[0] < tokens(letters, [{"role": "user", "content": "two"}]) + 5


def test_an_answer_that_reaches_the_end_of_the_context_continues_after_forgetting(
    llm: Transformer, letters: Tokenizer
) -> None:
    chat = conversation(llm, letters, logit_bias={97: 100.0})
    "".join(chat.answer("x" * 80))
    chat.settings["max_tokens"] = 120
    assert "".join(chat.answer("one")) == "a" * 120
    assert chat.forgotten == 2
    assert not chat.is_full
    assert chat.finish == "length"
    assert chat.times.decode_tokens >= 118
    assert [message["content"] for message in chat.messages[2:]] == ["one", "a" * 120]


def test_a_restored_dialog_that_is_far_too_long_is_cut_to_what_fits(llm: Transformer, letters: Tokenizer) -> None:
    turn = [{"role": "user", "content": "Q" * 20}, {"role": "assistant", "content": "A" * 20}]
    chat = conversation(llm, letters)
    chat.restore([{"role": "system", "content": "S"}, *turn * 50])
    "".join(chat.answer("one"))
    assert len(chat.messages) == 103
    assert 90 < chat.forgotten < 100
    chat.reset()
    assert chat.forgotten == 0


def test_a_long_question_forgets_all_before_it(llm: Transformer, letters: Tokenizer) -> None:
    chat = conversation(llm, letters)
    for _ in range(2):
        "".join(chat.answer("one"))
    "".join(chat.answer("x" * 200))
    assert chat.forgotten == 4
    assert chat.undo() == "x" * 200
    assert chat.forgotten == 0  # the earlier turns fit again
    assert len(chat.messages) == 4


def test_a_new_answer_replaces_the_last_one_and_draws_with_another_seed(llm: Transformer, letters: Tokenizer) -> None:
    chat = conversation(llm, letters)
    "".join(chat.answer("one"))
    first = "".join(chat.answer("two"))
    prompt = Llama3Chat(letters).encode(chat.messages[:3])
    for seed in (2, 3):
        again = "".join(chat.regenerate())
        assert again == "".join(generate(llm, letters, prompt, 12, temperature=0.8, seed=seed))
        assert again != first
        assert [message["content"] for message in chat.messages[2:]] == ["two", again]
    assert chat.settings["seed"] == 1


def test_a_new_answer_that_fails_keeps_the_old_one(
    llm: Transformer, letters: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = conversation(llm, letters)
    with pytest.raises(InputError, match="no message to answer again"):
        chat.regenerate()
    "".join(chat.answer("one"))
    before = list(chat.messages)
    again = chat.regenerate()
    monkeypatch.setattr(llm, "forward", lambda *a, **b: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        list(again)
    assert chat.messages == before


def test_undo_takes_back_the_last_question_and_its_answer(llm: Transformer, letters: Tokenizer) -> None:
    chat = conversation(llm, letters)
    chat.system = "S"
    "".join(chat.answer("one"))
    "".join(chat.answer("two"))
    assert chat.question == "two"
    assert chat.undo() == "two"
    assert len(chat.messages) == 3
    assert chat.undo() == "one"
    assert chat.messages == [{"role": "system", "content": "S"}]
    assert chat.question is None
    with pytest.raises(InputError, match="no message to take back"):
        chat.undo()


def test_an_answer_that_is_interrupted_before_its_first_word_is_not_kept(
    llm: Transformer, letters: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = conversation(llm, letters)
    answer = chat.answer("one")
    monkeypatch.setattr(llm, "forward", lambda *a, **b: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        list(answer)
    assert chat.messages == []


def test_restoring_messages_that_are_no_dialog_raises(llm: Transformer, letters: Tokenizer) -> None:
    chat = conversation(llm, letters)
    with pytest.raises(InputError, match="message 1"):
        chat.restore([{"role": "nobody", "content": ""}])
    assert chat.messages == []


def test_the_reading_of_a_long_dialog_is_shown(letters: Tokenizer) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    config = ModelConfig(dim=16, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=24, vocab_size=261, max_seq_len=1000)
    chat = conversation(Transformer(config), letters, max_tokens=3)
    with reporting(reporter_on(stream)):
        list(chat.answer("x" * 100))
        assert stream.getvalue() == ""
        list(chat.answer("x" * 600))
    assert "reading" in stream.getvalue()
    shown = len(stream.getvalue())
    list(chat.answer("x" * 100))
    assert len(stream.getvalue()) == shown
