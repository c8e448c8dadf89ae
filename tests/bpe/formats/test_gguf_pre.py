"""The values of tokenizer.ggml.pre: all that llama.cpp reads, and the ones that it is given."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from bpe import InputError, Tokenizer
from bpe.formats.byte_level import token_text
from bpe.formats.gguf import render, vocabulary_metadata
from bpe.formats.gguf_container import lay_out
from bpe.formats.gguf_pre import PRE_TOKENIZERS, pattern_of, pre_of
from bpe.patterns import PATTERNS
from bpe.splitting.steps import Split
from support.references import PECULIAR, byte_tokenizer

# All that llama_vocab::impl::load of llama.cpp compares tokenizer_pre with, as in llama-cpp-python 0.3.36.
_NAMES = """
    default minicpm5 llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano deepseek-llm
    deepseek-coder deepseek-v3 spark2_5 youtu falcon mpt starcoder gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es
    jina-v2-de a.x-4.0 mellum modern-bert jais-2 gemma4 granite-embed-multi-311m sarvam-moe jina-v1-en jina-v2-code
    roberta-bpe whitespace refact command-r qwen2 deepseek-r1-qwen kormo f2llmv2 qwen35 stablelm2 olmo dbrx smaug-bpe
    poro-chat chatglm-bpe glm4 glm5 viking jais tekken smollm codeshell bloom gpt3-finnish exaone exaone4 exaone-moe
    chameleon minerva-7b megrez gpt-4o llama4 kanana2 talkie granite-embed-multi-97m tiny_aya cohere2moe superbpe
    trillion granite-docling bailingmoe bailingmoe2 llada-moe seed-coder hunyuan hunyuan-dense hy_v4 joyai-llm kimi-k2
    ufakzeka grok-2 afmoe laguna minimax-m2 solar-open mellum2
"""
LLAMA_CPP = _NAMES.split()
BY_NAME = [name for name in LLAMA_CPP if isinstance(getattr(PRE_TOKENIZERS.get(name), "splits", None), str)]
BY_STEPS = [name for name in PRE_TOKENIZERS if pattern_of(name).scanner is None]
CHARACTERS = ["gemma4", "granite-embed-multi-311m", "sarvam-moe", "whitespace"]


def gguf_of(tokenizer: Tokenizer, pre: str | None, tmp_path: Path) -> Path:
    metadata = {"general.architecture": "llama"} | vocabulary_metadata(tokenizer.vocabulary, tokenizer.n_vocab)
    metadata |= {"tokenizer.ggml.pre": pre}
    path = tmp_path / "pre.gguf"
    path.write_bytes(lay_out({key: value for key, value in metadata.items() if value is not None}, {})[0])
    return path


def test_all_values_that_llama_cpp_reads_are_known_or_refused_by_name() -> None:
    assert {*PRE_TOKENIZERS, *CHARACTERS} == {*LLAMA_CPP}
    for name in CHARACTERS:
        with pytest.raises(InputError, match=f"{name}.*merges characters instead of bytes.*tokenizer.json"):
            pattern_of(name)


@pytest.mark.parametrize("pre", BY_NAME)
def test_each_value_splits_as_the_pattern_that_it_stands_for(pre: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(gguf_of(byte_tokenizer("gpt2"), pre, tmp_path))
    assert tokenizer.pattern == PATTERNS[str(PRE_TOKENIZERS[pre].splits)]


# Tokens that depend on where a text is cut: digits, letters of several scripts, punctuation and white space.
PAIRS = [left + right for left in "a1 .\n" for right in "a1 .\n"]
PAIRS += ["A1", "é", "п", "пп", "aé", "...", "111", "a a"]
MIXED = "aA1 .\n\r" * 3 + "é日本'〇٣²ǅsT" + PECULIAR


def as_tokenizers(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """Return tokenizers' encoder with the vocabulary of a GGUF and each of its splits."""
    texts = {id: token_text(token) for token, id in tokenizer.mergeable_ranks.items()}
    merges = [(texts[left], texts[right]) for left, right, _ in tokenizer.vocabulary.merges()]
    model = models.BPE({text: id for id, text in texts.items()}, merges, ignore_merges=not tokenizer.merges_only)
    theirs = tokenizers.Tokenizer(model)
    splits = [step for step in tokenizer.pattern.all_steps if isinstance(step, Split)]
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(tokenizers.Regex(step.pattern), "isolated") for step in splits]
        + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return theirs


@pytest.mark.parametrize("pre", BY_STEPS)
def test_values_of_several_splits_give_the_ids_of_tokenizers(pre: str, tmp_path: Path) -> None:
    tokens = dict.fromkeys(PAIRS, 0)
    written = byte_tokenizer("gpt2", **{token: 256 + rank for rank, token in enumerate(tokens)})
    ours = Tokenizer.from_file(gguf_of(written, pre, tmp_path))
    theirs = as_tokenizers(ours)
    rng = random.Random(pre)
    for _ in range(200):
        text = "".join(rng.choices(MIXED, k=rng.randint(0, 24)))
        assert ours.encode_ordinary(text) == theirs.encode(text).ids, text
    path = tmp_path / "written.gguf"
    path.write_bytes(render(ours.vocabulary))
    again = Tokenizer.from_file(path)
    assert (again.pattern, again.merges_only) == (ours.pattern, ours.merges_only)


@pytest.mark.parametrize("pre", [None, "of-tomorrow", "gemma4", "qwen2"])
def test_a_given_pattern_overrules_a_missing_an_unknown_and_a_known_value(pre: str | None, tmp_path: Path) -> None:
    path = gguf_of(byte_tokenizer("gpt2"), pre, tmp_path)
    assert Tokenizer.from_file(path, "llama3").pattern == PATTERNS["llama3"]


@pytest.mark.parametrize(
    ("pattern", "pre"),
    [
        ("llama3", "llama-bpe"),
        ("gpt2", "gpt-2"),
        ("smollm", "smollm"),
        ("qwen2", "qwen2"),
        ("o200k", "gpt-4o"),
        ("llama4", "llama4"),
        ("gpt-neox", "gpt-2"),
        ("mpt", "mpt"),
        ("starcoder", "starcoder"),
        ("command-r", "command-r"),
        ("glm4", "glm4"),
        ("gpt-oss", "gpt-4o"),
        ("tekken", "tekken"),
        ("qwen3.5", "qwen35"),
        ("kimi-k2", "kimi-k2"),
        ("deepseek-llm", "deepseek-llm"),
        ("deepseek-coder", "deepseek-coder"),
        ("deepseek-v3", "deepseek-v3"),
        ("falcon", "falcon"),
        ("superbpe", "superbpe"),
    ],
)
def test_each_pattern_is_written_under_its_value_and_read_again(pattern: str, pre: str, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(pattern)
    path = tmp_path / "written.gguf"
    path.write_bytes(render(tokenizer.vocabulary))
    assert re.search(rb"tokenizer\.ggml\.pre.{12}" + pre.encode(), path.read_bytes(), re.DOTALL)
    again = Tokenizer.from_file(path)
    assert again.pattern.all_steps == tokenizer.pattern.all_steps
    assert again.encode_ordinary("Hello wORLD's 12345  \n\n x") == tokenizer.encode_ordinary(
        "Hello wORLD's 12345  \n\n x"
    )


def test_tokens_that_no_merge_leads_to_decide_between_the_values_of_a_pattern() -> None:
    assert pre_of(PATTERNS["llama3"], merges_only=False) == "llama-bpe"
    assert pre_of(PATTERNS["llama3"], merges_only=True) == "dbrx"
    assert pre_of(PATTERNS["o200k"], merges_only=False) == "granite-embed-multi-97m"


def test_all_values_split_by_steps_that_are_written_under_the_same_steps() -> None:
    for name, pre in PRE_TOKENIZERS.items():
        pattern = pattern_of(name)
        written = PRE_TOKENIZERS[pre_of(pattern, pre.merges_only)]
        assert written.merges_only == pre.merges_only
        assert pattern.all_steps == pattern_of(pre_of(pattern, None)).all_steps
