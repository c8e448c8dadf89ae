"""Test that a base vocabulary, of any kind, is extended by the tokens that continued training would learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from bpe import InputError, Tokenizer, train, train_from_iterator
from bpe.training.settings import MergeStep, Trained
from bpe.vocabulary import AddedToken, Vocabulary
from support.plain_trainer import plain_training
from support.references import BYTE_RANKS, byte_tokenizer, encoding_of
from support.training import train_on

WORDS = r"\S+|\s"


def ranks_of(*tokens: str, gap: int = 1) -> dict[bytes, int]:
    """Return single bytes and these tokens, with ranks that are `gap` apart."""
    return BYTE_RANKS | {token.encode(): 256 + i * gap for i, token in enumerate(tokens)}


def base_of(ranks: Mapping[bytes, int], special_tokens: Mapping[str, int] | None = None) -> Tokenizer:
    return Tokenizer("base", pat_str=WORDS, mergeable_ranks=ranks, special_tokens=special_tokens or {})


def uses_by_encoding(tokenizer: Tokenizer, text: str) -> Counter[int]:
    ids = tokenizer.encode_ordinary(text)
    assert ids == encoding_of(tokenizer).encode_ordinary(text)
    return Counter(ids)


def assert_grown_by_the_definition(
    base: Tokenizer,
    text: str,
    merges: int,
    *,
    min_frequency: int = 1,
    max_token_length: int | None = None,
) -> None:
    ranks = base.mergeable_ranks
    expected = plain_training(
        [word.encode() for word in regex.findall(base.pattern.text, text)],
        merges,
        base=ranks,
        min_frequency=min_frequency,
        max_token_length=max_token_length,
    )
    results: list[Trained] = []
    steps: list[MergeStep] = []
    tokenizer = train_on(
        [[text]],
        len(ranks) + len(base.special_tokens) + merges,
        base=base,
        min_frequency=min_frequency,
        max_token_length=max_token_length,
        allow_smaller=True,
        trained=results.append,
        trace=merges,
        traced=steps.append,
    )
    kept = tokenizer.special_tokens.values()
    free = (id for id in range(max(ranks.values()) + 1, 1 << 31) if id not in kept)
    assert tokenizer.mergeable_ranks == {**ranks, **dict(zip(expected.tokens, free, strict=False))}
    assert tokenizer.special_tokens == base.special_tokens
    assert results[0].counts.tolist() == [merge.count for merge in expected.merges]
    final = tokenizer.mergeable_ranks
    for step, merge, (left, right), token in zip(
        steps, expected.merges, results[0].pairs.tolist(), expected.tokens, strict=True
    ):
        assert step.left + step.right == token
        assert (step.rank, left, right) == (final[token], final[step.left], final[step.right])
        assert tuple(step.word) in merge.words
        assert step.word[step.place : step.place + 2] == [step.left, step.right]
    uses = {id: n for id, n in enumerate(results[0].uses.tolist()) if n}
    assert uses == {final[token]: n for token, n in expected.uses.items()}
    assert uses == uses_by_encoding(tokenizer, text)


# Bases


@st.composite
def bases_and_texts(draw: st.DrawFn) -> tuple[dict[bytes, int], dict[str, int], str]:
    """Draw a base vocabulary, its special tokens, and a text that contains its tokens, alone and in longer words.

    The tokens are over few letters and in any order, with gaps between the ids. Merging cannot reach many of them. The
    ids of special tokens come after those of the other tokens.
    """
    letters = draw(st.sampled_from(["a", "ab", "abc", "abcd"]))
    word = st.text(letters, min_size=1, max_size=10)
    tokens = draw(st.lists(st.text(letters, min_size=2, max_size=7), unique=True, max_size=12))
    order = [*BYTE_RANKS, *(token.encode() for token in tokens)]
    if draw(st.booleans()):  # bytes need not come first
        order.reverse()
    holes = draw(st.lists(st.integers(0, len(order) - 1), max_size=4))
    ranks = {token: i + sum(hole <= i for hole in holes) for i, token in enumerate(order)}
    behind = max(ranks.values()) + 1
    places = draw(st.lists(st.integers(behind, behind + 6), unique=True, max_size=3))
    special_tokens = {f"<|{i}|>": place for i, place in enumerate(places)}
    words = st.tuples(word, st.sampled_from([*tokens, ""]), word).map("".join)
    return (
        ranks,
        special_tokens,
        " ".join(draw(st.lists(words | word | st.sampled_from([*tokens, "a"]), min_size=1, max_size=12))),
    )


@given(
    case=bases_and_texts(),
    merges=st.sampled_from([1, 3, 200]),
    min_frequency=st.integers(1, 3),
    max_token_length=st.none() | st.integers(2, 6),
)
@example((ranks_of("abc"), {}, "abc xabc xab abcx"), 200, 1, None)  # merging reaches "abc" once "ab" or "bc" exists
@example(
    (ranks_of("abc", "abcd", "abcde"), {}, "xabcdey xabcdey abx"), 200, 1, None
)  # tokens become reachable one after the other
@example(
    (ranks_of("abc", "bcd", "cde"), {}, "xabcdex xbcde xabcd"), 200, 1, None
)  # several tokens become reachable at once
@example((ranks_of("bcd", "abc"), {}, "xabcdx xabcdx"), 200, 1, None)  # the lower rank wins over the first place
@example((ranks_of("aaaa"), {}, "baaaaaaaaab aaaaaaab"), 200, 1, None)
@example((ranks_of("aaa", "aaaaaa"), {}, "baaaaaaaaaab aab"), 200, 1, None)
@example((ranks_of("aba", "baba"), {}, "cabababac cababac"), 200, 1, None)
@example((ranks_of("abcab", "cab"), {}, "xabcabcabcabx xabcabx"), 200, 1, None)
@example(
    (ranks_of("abab", "ab", gap=4), {}, "abababab ababab"), 200, 1, None
)  # a half has a higher rank than the token
def test_a_base_is_extended_by_the_tokens_of_the_definition(
    case: tuple[dict[bytes, int], dict[str, int], str],
    merges: int,
    min_frequency: int,
    max_token_length: int | None,
) -> None:
    ranks, special_tokens, text = case
    assert_grown_by_the_definition(
        base_of(ranks, special_tokens),
        text,
        merges,
        min_frequency=min_frequency,
        max_token_length=max_token_length,
    )


def test_cl100k_is_extended_by_tokens_of_other_scripts(cl100k: Tokenizer, corpus_texts: dict[str, str]) -> None:
    text = "".join(corpus_texts[f"sentences/{name}.txt"] for name in ("am", "hi", "ja", "ka", "th"))
    assert_grown_by_the_definition(cl100k, text, 300)


def test_training_in_two_steps_equals_training_in_one(corpora: Path) -> None:
    files = [str(corpora / "prose.txt"), str(corpora / "sentences")]
    half = train(files, 1000, "gpt2", ())
    whole = train(files, 2000, base=half)
    assert list(whole.mergeable_ranks.items()) == list(train(files, 2000, "gpt2", ()).mergeable_ranks.items())


# Patterns and special tokens


def test_special_tokens_of_the_base_are_kept_and_given_ones_follow_all_ids() -> None:
    base = base_of(ranks_of("zz"), {"<|a|>": 258, "<|b|>": 1000})
    kept = train_from_iterator(["abcd"], 256 + 1 + 2 + 3, base=base)
    assert kept.special_tokens == {"<|a|>": 258, "<|b|>": 1000}
    assert kept.mergeable_ranks == base.mergeable_ranks | {b"ab": 257, b"cd": 259, b"abcd": 260}
    given = train_from_iterator(["abcd"], 256 + 1 + 4 + 3, base=base, special_tokens=["<|c|>", "<|b|>", "<|d|>"])
    assert given.mergeable_ranks == kept.mergeable_ranks
    assert given.special_tokens == {"<|a|>": 258, "<|b|>": 1000, "<|c|>": 1001, "<|d|>": 1002}
    dense = train_from_iterator(
        ["abcd"], 256 + 1 + 2 + 3, base=base_of(ranks_of("zz"), {"<|a|>": 257}), special_tokens=["<|c|>"]
    )
    assert dense.mergeable_ranks == base.mergeable_ranks | {b"ab": 258, b"cd": 259, b"abcd": 260}
    assert dense.special_tokens == {"<|a|>": 257, "<|c|>": 261}
    none = train_from_iterator(["abcd"], 256 + 1 + 3, base=base, special_tokens=())
    assert none.special_tokens == {}


def test_no_merge_crosses_a_special_token_of_the_base_or_an_added_one() -> None:
    base = base_of(BYTE_RANKS, {"|": 256})
    grown = train_from_iterator(["a|a|a+a+abcd"], 999, base=base, special_tokens=["+"], allow_smaller=True)
    assert not {b"a|", b"a+"} & grown.mergeable_ranks.keys()


def test_what_the_base_says_of_its_added_tokens_and_of_the_ends_of_a_text_stays() -> None:
    ranks = ranks_of("zz")
    added = [AddedToken("<think>", 257, special=False), AddedToken("<|a|>", 258), AddedToken("<|end|>", 300)]
    plain = base_of(ranks).vocabulary
    vocabulary = Vocabulary("base", plain.pattern, plain.tokens, plain.offsets, plain.ids, added)
    base = Tokenizer.from_vocabulary(vocabulary).with_boundaries(end_tokens=["<|end|>"])
    for special_tokens in (None, ["<|x|>"]):
        grown = train_from_iterator(["abcd"], 266, base=base, special_tokens=special_tokens, allow_smaller=True)
        assert grown.vocabulary.added_tokens[:3] == tuple(added)
        assert grown.eos_ids == (300,)


def test_an_added_end_token_of_a_known_name_ends_a_text_unless_the_base_says_otherwise() -> None:
    base = base_of(ranks_of("zz"), {"<|a|>": 257, "<|endoftext|>": 258})
    options: dict[str, Any] = {"special_tokens": ["<|im_end|>"], "allow_smaller": True}
    grown = train_from_iterator(["abcd"], 266, base=base, **options)
    assert set(grown.eos_ids) == {258, grown.special_tokens["<|im_end|>"]}
    told = train_from_iterator(["abcd"], 266, base=base.with_boundaries(end_tokens=["<|a|>"]), **options)
    assert told.eos_ids == (257,)


def test_no_merge_crosses_a_special_token_of_the_base() -> None:
    base = base_of(BYTE_RANKS, {"|": 256})
    assert b"a|" not in train_from_iterator(["a|a|a|bc"], 999, base=base, allow_smaller=True).mergeable_ranks
    assert (
        b"a|"
        in train_from_iterator(["a|a|a|bc"], 999, base=base, special_tokens=(), allow_smaller=True).mergeable_ranks
    )


def test_a_pattern_other_than_the_base_s_is_refused() -> None:
    base = byte_tokenizer("gpt2")
    assert train_from_iterator(["ab"], 257, "gpt2", base=base).pattern.name == "gpt2"
    assert train_from_iterator(["ab"], 257, base=base).pattern.name == "gpt2"
    for pattern in ("llama3", WORDS):
        with pytest.raises(InputError, match="the base splits text by 'gpt2', not by"):
            train_from_iterator(["ab"], 257, pattern, base=base)
    with pytest.raises(InputError, match="the base splits"):
        train_from_iterator(["ab"], 257, "gpt2", base=base_of(BYTE_RANKS))


def test_a_vocabulary_smaller_than_its_base_is_refused() -> None:
    base = base_of(ranks_of("ab"), {"<|a|>": 300})
    with pytest.raises(InputError, match="too small: the base's 257 tokens and 1 special tokens need at least 258"):
        train_from_iterator(["ab"], 257, base=base)
    same = train_from_iterator(["cd"], 258, base=base)
    assert (same.mergeable_ranks, same.special_tokens) == (base.mergeable_ranks, base.special_tokens)


def test_required_tokens_are_added_to_a_base() -> None:
    base = base_of(ranks_of("abc"))  # merging does not reach "abc", and the merges of "abcd" do not need it
    tokenizer = train_from_iterator(["xabcx"], 262, base=base, required_tokens=["abcd", "abc"], allow_smaller=True)
    assert {b"abc", b"abcd"} <= set(tokenizer.mergeable_ranks)
    assert tokenizer.vocabulary.encoder.merge_plain(b"abcd") == [tokenizer.encode_single_token("abcd")]
