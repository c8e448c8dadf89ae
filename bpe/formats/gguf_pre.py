"""The values of ``tokenizer.ggml.pre`` in a GGUF: how each splits a text.

The names, and what each of them stands for, are those of ``llama_vocab::impl::load`` and ``llm_tokenizer_bpe`` in
llama.cpp's src/llama-vocab.cpp, as in llama-cpp-python 0.3.36. llama.cpp splits a text by several expressions in turn:
each cuts every piece into its matches and what is between them, as a sequence of isolated splits does in
``tokenizers``. The expressions here are those of the models' own tokenizers where llama.cpp quotes them, and
llama.cpp's otherwise. llama.cpp runs simpler ones, which treat rare characters differently: in the patterns that know
capital and small letters, for example, its classes tell only ASCII letters apart.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

from bpe.errors import InputError, did_you_mean
from bpe.patterns import DIGITS_THEN_GPT2, PATTERNS, Pattern, pattern_of_steps
from bpe.published_patterns import (
    DEEPSEEK_V3_REST,
    DEEPSEEK_V3_WORDS,
    GPT2,
    KANA_AND_HAN,
    LLAMA3,
    O200K,
    QWEN2,
    isolated,
)
from bpe.splitting.excerpts import excerpt
from bpe.splitting.steps import Step


class PreTokenizer(NamedTuple):
    """What a value of ``tokenizer.ggml.pre`` stands for."""

    splits: str | tuple[Step, ...]
    """The name of the known pattern that splits in the same way, or the steps that split a text."""
    merges_only: bool
    """Whether a token that no merge leads to is never used, even if it is a whole pretoken."""


_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
# Groups of three digits, counted from the end of the number.
_DIGITS_FROM_THE_END = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"
_CHAMELEON = isolated(
    "<sentinel:[0-9]+>",
    "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
    r"([\t\n]|    |  )",
    r"\p{N}",
    r"[\p{P}!-/:-@\[-`{-~]",
    GPT2,
)
_YOUTU = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+"
_AFMOE_SCRIPTS = "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+"
_EXAONE_MOE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
_BAILING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
_SEED = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1}|").replace(r"[^\s\p{L}\p{N}]+[\r\n]*", r"[^\s\p{L}\p{N}\r\n]+")
_JAIS2 = LLAMA3.removesuffix(r"|\s+(?!\S)|\s+") + (
    r"|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)"
    r"|\s{1,2}(?!\S)|\s{1}"
)

_KINDS: tuple[tuple[str | tuple[Step, ...], bool, str], ...] = (
    # llama.cpp takes a pretoken that is a token whole:
    ("llama3", False, "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano glm4 glm5"),
    ("tekken", False, "tekken"),
    (isolated(_YOUTU, O200K.replace(r"\p{N}{1,3}", r"\p{N}")), False, "youtu"),
    (isolated(r"\p{N}{1,3}", LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}+")), False, "minicpm5"),
    # llama.cpp only merges:
    ("llama3", True, "dbrx smaug-bpe chatglm-bpe"),
    (
        "gpt2",
        True,
        "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en jina-v2-code"
        " roberta-bpe exaone4 mpt olmo jais trillion granite-docling",
    ),
    ("smollm", True, "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2"),
    ("qwen2", True, "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2"),
    ("o200k", True, "gpt-4o minimax-m2 kanana2 talkie"),
    ("llama4", True, "llama4"),
    ("o200k", False, "granite-embed-multi-97m"),  # takes tokens whole
    ("qwen3.5", True, "qwen35"),
    (isolated(r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"), True, "default"),
    ("falcon", True, "falcon"),
    ("deepseek-llm", True, "deepseek-llm"),
    ("deepseek-coder", True, "deepseek-coder"),
    ("deepseek-v3", True, "deepseek-v3 hunyuan-dense joyai-llm hy_v4"),
    (
        isolated(r"\p{N}{1,3}", KANA_AND_HAN, DEEPSEEK_V3_WORDS + r"|[\r\n]|\s+(?!\S)|\s+", r"\p{N}"),
        True,
        "spark2_5",
    ),
    (isolated(_BLOOM), True, "bloom poro-chat gpt3-finnish"),
    (isolated(_BLOOM, r"\p{N}"), True, "viking"),
    (_CHAMELEON, True, "chameleon"),
    (isolated(r"\d{1,3}(?=(?:\d{3})*\b)", O200K), True, "tiny_aya cohere2moe"),
    ("kimi-k2", True, "kimi-k2"),
    ("superbpe", True, "superbpe"),
    (isolated(_BAILING), True, "bailingmoe bailingmoe2 llada-moe"),
    (isolated(_SEED), True, "seed-coder"),
    (isolated(QWEN2.removeprefix("(?i:'s|'t|'re|'ve|'m|'ll|'d)|")), True, "ufakzeka"),
    (isolated(_DIGITS_FROM_THE_END, _AFMOE_SCRIPTS, DEEPSEEK_V3_WORDS + DEEPSEEK_V3_REST), True, "afmoe"),
    (isolated(r"[^\n]+|[\n]+", QWEN2), True, "laguna"),
    (isolated(_EXAONE_MOE), True, "exaone-moe"),
    (isolated(_JAIS2), True, "jais-2"),
)
PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    name: PreTokenizer(splits, merges_only) for splits, merges_only, names in _KINDS for name in names.split()
}
"""What each value stands for."""
# llama.cpp merges the characters of these, not bytes, over text in which a visible character replaces each space.
_CHARACTERS = ("gemma4", "granite-embed-multi-311m", "sarvam-moe", "whitespace")


def known(pre: object) -> PreTokenizer | None:
    """Return what a value of ``tokenizer.ggml.pre`` stands for; None if it is unknown. A missing one is "default"."""
    if pre is None or pre == "":
        pre = "default"
    return PRE_TOKENIZERS.get(pre) if isinstance(pre, str) else None


def pattern_of(pre: object) -> Pattern:
    """Return the split pattern that a value of ``tokenizer.ggml.pre`` stands for.

    Warns if it is missing: llama.cpp, which warns as well, splits as with "default", which is hardly how the model has
    been trained.

    Args:
        pre: The value, as found in a file; None if it is missing.

    Raises:
        InputError: When it is unknown or not supported.

    >>> pattern_of("falcon3").name
    'llama3'
    """
    remedy = "give the split pattern with pattern= or --pattern"
    found = known(pre)
    if pre is None or pre == "":
        warnings.warn(
            "tokenizer.ggml.pre, which names the split pattern, is missing; text is split as llama.cpp does then, and"
            f" the model may have been trained with another split: {remedy}",
            stacklevel=2,
        )
    if found is not None:
        return _pattern(found)
    if pre in _CHARACTERS:
        raise InputError(
            f"tokenizer.ggml.pre is {pre!r}, which merges characters instead of bytes and is not supported; use the"
            " model's tokenizer.json"
        )
    similar = did_you_mean(pre, PRE_TOKENIZERS) if isinstance(pre, str) else ""
    raise InputError(f"tokenizer.ggml.pre is {pre!r}, which no llama.cpp is known to read{similar}; {remedy}")


def pre_of(pattern: Pattern, merges_only: bool | None) -> str:
    """Return the value of ``tokenizer.ggml.pre`` with which llama.cpp splits by a pattern.

    Args:
        pattern: The split pattern.
        merges_only: Whether tokens that no merge leads to are never used; None if there are none. If llama.cpp has no
            value that treats them so, the result is one that treats them differently.

    Raises:
        InputError: When llama.cpp has no value for the pattern.

    >>> pre_of(PATTERNS["llama3"], merges_only=None), pre_of(PATTERNS["llama3"], merges_only=True)
    ('llama-bpe', 'dbrx')
    """
    same = [name for name, pre in PRE_TOKENIZERS.items() if _splits_by(pre, pattern)]
    known_by_name = {pre.splits for pre in PRE_TOKENIZERS.values()}
    own = None if pattern.name in known_by_name else pattern.name  # such as starcoder, which splits as smollm does
    same.sort(key=lambda name: (name != own, PRE_TOKENIZERS[name].splits != pattern.name))
    if same:
        return next((name for name in same if merges_only in (None, PRE_TOKENIZERS[name].merges_only)), same[0])
    has = dict.fromkeys(pre.splits for pre in PRE_TOKENIZERS.values() if isinstance(pre.splits, str))
    raise InputError(
        f"llama.cpp has no pre-tokenizer for the pattern '{excerpt(pattern.name or pattern.text)}'; it has those of"
        f" {', '.join(has)}"
    )


def _splits_by(pre: PreTokenizer, pattern: Pattern) -> bool:
    own = _pattern(pre)
    if pattern.steps == DIGITS_THEN_GPT2.steps:
        pattern = PATTERNS["smollm"]  # llama.cpp has one pre-tokenizer for both
    return (own.text, own.steps) == (pattern.text, pattern.steps)


def _pattern(pre: PreTokenizer) -> Pattern:
    return PATTERNS[pre.splits] if isinstance(pre.splits, str) else pattern_of_steps(pre.splits)
