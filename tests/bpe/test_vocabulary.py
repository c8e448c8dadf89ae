"""The vocabulary: its tokens and merges, what it says about added tokens, and copies of it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from array import array

import pytest

from bpe import InputError, Tokenizer
from bpe.boundaries import Boundaries
from bpe.patterns import find_pattern
from bpe.vocabulary import AddedToken, Vocabulary, chosen_tokens
from support.references import BYTE_RANKS

GPT2 = find_pattern("gpt2")
RANKS = {b"ll": 257, b"xyz": 260, b"he": 256, **BYTE_RANKS, b"hell": 258}  # in no order; "xyz" is unreachable


def test_ranks_are_in_rank_order_and_tokens_in_byte_order() -> None:
    vocabulary = Vocabulary.from_ranks("tiny", GPT2, RANKS, {"<|end|>": 300})
    assert list(vocabulary.ranks.items()) == sorted(RANKS.items(), key=lambda item: item[1])
    assert vocabulary.sorted_tokens == sorted(RANKS)


def test_counts_and_limits_of_ids_with_and_without_added_tokens() -> None:
    vocabulary = Vocabulary.from_ranks("tiny", GPT2, RANKS, {"<|end|>": 300})
    assert (vocabulary.token_count, vocabulary.n_vocab, vocabulary.max_token_value) == (261, 301, 300)
    assert (vocabulary.id_limit, vocabulary.merge_count, vocabulary.unreachable_count) == (261, 3, 1)
    assert vocabulary.merges() == [(104, 101, 256), (108, 108, 257), (256, 257, 258)]


def test_a_pattern_without_a_scanner_is_compiled_at_once() -> None:
    with pytest.raises(ValueError, match="the split pattern"):
        Vocabulary.from_ranks("tiny", find_pattern("("), BYTE_RANKS, {})


@pytest.mark.parametrize("pattern", ["gpt2", r"\w+|\W"])
def test_a_pickled_vocabulary_keeps_every_field(pattern: str) -> None:
    added = [AddedToken("<|end|>", 301), AddedToken("<b>", 300, special=False, normalized=True)]
    offsets, ids = memoryview(array("Q", range(257))), memoryview(array("I", range(256)))
    vocabulary = Vocabulary(
        "tiny",
        find_pattern(pattern),
        bytes(range(256)),
        offsets,
        ids,
        added,
        normalizer={"type": "NFC"},
        boundaries=Boundaries(bos_id=300, eos_ids=(301,), prefix_ids=(300,), bos_from="tokenizer_config.json"),
    )
    copy = pickle.loads(pickle.dumps(vocabulary))
    assert (copy.name, copy.pattern, copy.added_tokens) == ("tiny", find_pattern(pattern), tuple(added))
    assert (copy.tokens, copy.offsets.tolist(), copy.ids.tolist()) == (bytes(range(256)), [*range(257)], [*range(256)])
    assert (copy.normalizer, copy.boundaries, copy.merges_only) == ({"type": "NFC"}, vocabulary.boundaries, False)
    assert isinstance(copy.boundaries, Boundaries)


def test_a_vocabulary_without_known_names_has_no_begin_and_no_end() -> None:
    vocabulary = Vocabulary.from_ranks("tiny", GPT2, BYTE_RANKS, {"<|turn_end|>": 300})
    assert vocabulary.boundaries == Boundaries()


def test_a_copy_with_other_boundaries_shares_the_encoder() -> None:
    vocabulary = Vocabulary.from_ranks("tiny", GPT2, RANKS, {"<s>": 300})
    changed = vocabulary.with_boundaries(Boundaries(eos_ids=(300,)))
    assert changed.encoder is vocabulary.encoder and changed.ranks == vocabulary.ranks
    assert (changed.boundaries.eos_ids, vocabulary.boundaries.eos_ids) == ((300,), ())
    assert pickle.loads(pickle.dumps(changed)).boundaries == changed.boundaries


def test_a_tokenizer_of_a_vocabulary_encodes_like_one_of_its_parts() -> None:
    vocabulary = Vocabulary.from_ranks("tiny", GPT2, RANKS, {"<|end|>": 300})
    parts = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=RANKS, special_tokens={"<|end|>": 300})
    tokenizer = Tokenizer.from_vocabulary(vocabulary)
    text = "hello<|end|> xyz"
    assert tokenizer.vocabulary is vocabulary
    assert tokenizer.encode(text, allowed_special="all") == parts.encode(text, allowed_special="all")
    assert (tokenizer.name, tokenizer.pattern, tokenizer.special_tokens) == ("tiny", GPT2, {"<|end|>": 300})


def test_a_vocabulary_with_a_normalizer_is_encoded_with_it() -> None:
    plain = Vocabulary.from_ranks("tiny", GPT2, BYTE_RANKS, {})
    arrays = (plain.tokens, plain.offsets, plain.ids)
    tokenizer = Tokenizer.from_vocabulary(Vocabulary("tiny", GPT2, *arrays, normalizer={"type": "Lowercase"}))
    assert tokenizer.encode("A b") == pickle.loads(pickle.dumps(tokenizer)).encode("A b") == list(b"a b")
    with pytest.raises(InputError, match="Nonsense"):
        Vocabulary("tiny", GPT2, *arrays, normalizer={"type": "Nonsense"})


def test_the_caller_chooses_all_none_more_or_other_added_tokens() -> None:
    found = [AddedToken("<a>", 300, special=False), AddedToken("<b>", 301)]
    ids = {"x": 120, "<a>": 300}

    def chosen(special_tokens: dict[str, int] | list[str] | None) -> list[AddedToken]:
        return [*chosen_tokens(found, special_tokens, ids, 400).values()]

    assert chosen(None) == found
    assert chosen([]) == []
    assert chosen(["<b>", "<c>", "x", "<d>"]) == [
        *found,
        AddedToken("<c>", 400),
        AddedToken("x", 120),
        AddedToken("<d>", 401),
    ]
    assert chosen(["<a>"]) == [AddedToken("<a>", 300), found[1]]
    assert chosen({"<a>": 400}) == [AddedToken("<a>", 400)]


def test_special_tokens_are_added_behind_all_ids_and_boundaries_follow() -> None:
    vocabulary = Vocabulary.from_ranks("tiny", GPT2, BYTE_RANKS, {"<a>": 300, "<|endoftext|>": 301})
    more = vocabulary.with_special_tokens(["<b>", "<a>", "x", "<|im_end|>"])
    assert more.special_tokens == {"<a>": 300, "<|endoftext|>": 301, "<b>": 302, "x": 120, "<|im_end|>": 303}
    assert set(more.boundaries.eos_ids) == {301, 303}
    said = vocabulary.with_boundaries(Boundaries(eos_ids=(300,), eos_from="a file"))
    assert said.with_special_tokens(["<|im_end|>"]).boundaries.eos_ids == (300,)
    assert vocabulary.with_special_tokens([]).special_tokens == vocabulary.special_tokens
    with pytest.raises(InputError, match="is a str"):
        vocabulary.with_special_tokens("<b>")


def test_importing_a_tokenizer_imports_neither_numpy_nor_other_heavy_modules() -> None:
    code = "import sys; before = {*sys.modules}; from bpe import Tokenizer; print(*{*sys.modules} - before)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numpy", "regex", "json", "dataclasses", "inspect", "pathlib", "gzip", "hashlib", "bpe.formats", "torch"}
    assert heavy & set(result.stdout.split()) == set()
