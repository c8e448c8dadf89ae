"""The patterns known by name split random texts as tiktoken and tokenizers do with the same texts or steps."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import tiktoken_ext.openai_public as openai
from tokenizers import Regex, pre_tokenizers

from bpe import InputError, Tokenizer, train_from_iterator
from bpe.patterns import PATTERNS, SCANNED, find_pattern, pattern_of_steps
from bpe.published_patterns import FOR_ONIGURUMA, GPT2, O200K, SMOLLM
from bpe.splitting.compile import compile_pattern
from bpe.splitting.steps import Split
from support.pattern_references import differ_from_tiktoken
from support.random_patterns import texts
from support.references import PECULIAR

OWN_SCRIPTS = "一龥ぁヿ가ࠀ퟿ώΰΊǄß！～‘　。123456789\n\n  '[]&&azAZ々〇"


def random_texts(name: str, count: int) -> list[str]:
    """Return texts of characters that the steps of a pattern tell apart, and of peculiar ones."""
    rng = random.Random(name)
    found = []
    for step in PATTERNS[name].all_steps:
        assert isinstance(step, Split)
        found += texts(rng, compile_pattern(step.pattern, "tokenizers"), count)
    letters = PECULIAR + OWN_SCRIPTS
    return found + ["".join(rng.choices(letters, k=rng.randint(0, 24))) for _ in range(count)]


def theirs(name: str) -> pre_tokenizers.PreTokenizer:
    """Return tokenizers' steps for a pattern, as the published tokenizers have them."""
    pattern = PATTERNS[name]
    if pattern.text == GPT2:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pattern.text == SMOLLM:
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    if pattern.steps is None:
        return pre_tokenizers.Split(Regex(FOR_ONIGURUMA.get(pattern.text, pattern.text)), "isolated")
    splits = [step for step in pattern.steps if isinstance(step, Split)]
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(step.pattern), "isolated") for step in splits])


@pytest.mark.parametrize("name", PATTERNS)
def test_each_name_splits_as_tokenizers_does(name: str) -> None:
    reference = theirs(name)
    for splitter in (PATTERNS[name].splitter(), PATTERNS[name].compiled()):
        for text in random_texts(name, 150):
            ends = [end for _, (_, end) in reference.pre_tokenize_str(text)]
            ours = [piece.decode() for piece in splitter.split(text)]
            assert ours == [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)], text


@pytest.mark.parametrize("name", [name for name, pattern in PATTERNS.items() if pattern.steps is None])
def test_each_name_of_a_regular_expression_splits_as_tiktoken_does(name: str) -> None:
    some = random_texts(name, 300)
    ours = [[piece.decode() for piece in PATTERNS[name].splitter().split(text)] for text in some]
    assert differ_from_tiktoken(PATTERNS[name].text, some, ours) == []


def test_a_text_or_steps_that_several_names_share_are_found_as_the_first() -> None:
    names = {name: find_pattern(pattern.text).name for name, pattern in SCANNED.items()}
    shared = {"llama4": "o200k", "gpt-oss": "o200k", "gpt-neox": "gpt2", "mpt": "gpt2", "glm4": "llama3"}
    shared |= {"starcoder": "smollm", "command-r": "smollm"}
    assert names == {name: shared.get(name, name) for name in SCANNED}
    for name in PATTERNS.keys() - SCANNED.keys():
        assert pattern_of_steps(PATTERNS[name].all_steps) == PATTERNS[name]


def test_the_special_tokens_of_gpt_oss_are_those_of_tiktoken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai, "load_tiktoken_bpe", lambda *_, **__: {})
    harmony = openai.o200k_harmony()
    ours = {token: 199_998 + i for i, token in enumerate(PATTERNS["gpt-oss"].special_tokens)}
    assert harmony["special_tokens"] == ours | {"<|reserved_200018|>": 200_018}
    assert harmony["pat_str"] == O200K == PATTERNS["gpt-oss"].text


@pytest.mark.parametrize("name", sorted(PATTERNS.keys() - {"llama4", "gpt-oss"}))
def test_a_tokenizer_trained_by_name_opens_again_and_splits_alike(name: str, tmp_path: Path) -> None:
    text = "Numbers 1234 and 56, and wörds' in 日本語 or Ελληνικά.\n" * 9
    ours = train_from_iterator([text], vocab_size=290, pattern=name, special_tokens=[])
    path = tmp_path / "tokenizer.json"
    ours.save(path)
    for again in (Tokenizer.from_file(path), Tokenizer.from_file(path, pattern=name)):
        assert again.pattern.all_steps == ours.pattern.all_steps
        assert again.encode_ordinary(text) == ours.encode_ordinary(text)
    assert Tokenizer.from_file(path, pattern=name).pattern == PATTERNS[name]


@pytest.mark.parametrize(
    ("word", "meant"),
    [("Tekken", "tekken"), ("glm-4", "glm4"), ("deepseek_v3", "deepseek-v3"), ("qwen3", "qwen2")]
    + [("o200k_harmony", "gpt-oss"), ("Qwen2.5", "qwen2"), ("gpt_neox", "gpt-neox")],
)
def test_similar_words_are_refused_with_the_name_that_is_meant(word: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"there is no split pattern '{word}'; did you mean {meant}\\?"):
        find_pattern(word)


def test_the_guide_lists_all_names() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "vocabulary.md").read_text("utf-8")
    table = guide.split("| name | published with |")[1].split("\n\n")[0]
    assert [row.split("`")[1] for row in table.splitlines() if row.startswith("| `")] == [*PATTERNS]
