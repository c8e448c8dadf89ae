"""What begins and ends a text: known names where no file says anything, and what a caller overrules."""

from __future__ import annotations

import pickle

import pytest

from bpe import InputError, Tokenizer
from bpe.boundaries import KNOWN_NAME, Boundaries, known_boundaries
from support.references import BYTE_RANKS


def tokenizer(*special: str) -> Tokenizer:
    special_tokens = {text: 256 + i for i, text in enumerate(special)}
    return Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=BYTE_RANKS, special_tokens=special_tokens)


@pytest.mark.parametrize("begin", ["<|begin_of_text|>", "<s>", "<bos>", "<|startoftext|>"])
def test_a_tokenizer_made_in_python_begins_texts_with_a_token_of_a_known_name(begin: str) -> None:
    tok = tokenizer("<x>", begin)
    assert (tok.bos_id, tok.prefix_ids, tok.add_bos) == (257, [257], True)
    assert (tok.vocabulary.boundaries.bos_from, tok.vocabulary.boundaries.prefix_from) == (KNOWN_NAME, KNOWN_NAME)


@pytest.mark.parametrize("end", ["</s>", "<eos>", "<|end|>", "<end_of_turn>", "<|return|>", "<|eot_id|>", "<|im_end|>"])
def test_a_tokenizer_made_in_python_ends_texts_with_tokens_of_known_names(end: str) -> None:
    tok = tokenizer("<x>", end)
    assert (tok.eos_ids, tok.add_eos) == ((257,), False)
    assert tok.vocabulary.boundaries.eos_from == KNOWN_NAME


def test_the_end_of_a_text_comes_before_the_end_of_a_turn() -> None:
    assert known_boundaries({"<|im_end|>": 7, "<|endoftext|>": 9}).eos_ids == (9, 7)
    assert known_boundaries({"<|eot_id|>": 7, "<|eom_id|>": 8, "<|end_of_text|>": 9}).eos_ids == (9, 7, 8)


def test_the_end_of_a_message_within_a_turn_of_gpt_oss_is_no_end() -> None:
    assert known_boundaries({"<|return|>": 2, "<|call|>": 12, "<|end|>": 7}).eos_ids == (2, 12)
    assert known_boundaries({"<|end|>": 7}).eos_ids == (7,)


def test_other_names_are_neither_begin_nor_end() -> None:
    tok = tokenizer("<|im_start|>", "<|turn_end|>")
    assert tok.vocabulary.boundaries == Boundaries()
    assert (tok.bos_id, tok.eos_ids, tok.prefix_ids, tok.add_bos, tok.add_eos) == (None, (), [], False, False)


def test_a_caller_overrules_what_is_put_in_front_and_what_ends_a_text() -> None:
    tok = tokenizer("<s>", "</s>", "<|turn_end|>")
    changed = tok.with_boundaries(bos=False, end_tokens=["<|turn_end|>", 65, "<|turn_end|>"])
    assert (changed.prefix_ids, changed.bos_id, changed.eos_ids) == ([], 256, (258, 65))
    assert changed.with_boundaries(bos=True).prefix_ids == [256]
    assert (tok.prefix_ids, tok.eos_ids) == ([256], (257,))
    assert changed.vocabulary.encoder is tok.vocabulary.encoder
    assert pickle.loads(pickle.dumps(changed)).eos_ids == (258, 65)
    sources = changed.vocabulary.boundaries
    assert (sources.prefix_from, sources.eos_from) == ("--no-bos", "--eos-token")


def test_an_end_token_may_be_an_ordinary_token() -> None:
    assert tokenizer().with_boundaries(end_tokens=["A"]).eos_ids == (65,)


@pytest.mark.parametrize("end", ["<|nothing|>", "", "two words", 300, -1, True, None, 1.5])
def test_an_end_token_that_the_vocabulary_lacks_is_refused(end: object) -> None:
    with pytest.raises(InputError, match=r"end token|no token"):
        tokenizer("<s>").with_boundaries(end_tokens=[end])  # type: ignore[list-item]


def test_a_begin_token_is_refused_where_none_is_known() -> None:
    with pytest.raises(InputError, match="no token is known to begin a text"):
        tokenizer("</s>").with_boundaries(bos=True)
