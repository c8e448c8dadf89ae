"""Split patterns: those known by name, and any regular expression or steps.

A pattern splits text into pretokens; merges never cross the border of a pretoken. The most common ones have a scanner
in the core. Their text is needed because a tokenizer file contains its pattern as text: the text identifies the pattern
of a file, and is written to files and given to tiktoken. All others are compiled for the core; see `bpe.splitting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from bpe import _core
from bpe.errors import InputError, did_you_mean
from bpe.published_patterns import (
    CL100K,
    CL100K_SPECIAL_TOKENS,
    COMMAND_R_SPECIAL_TOKENS,
    DEEPSEEK_CODER,
    DEEPSEEK_LLM,
    DEEPSEEK_SPECIAL_TOKENS,
    DEEPSEEK_V3,
    FALCON,
    FALCON_SPECIAL_TOKENS,
    FROM_ONIGURUMA,
    GLM4_SPECIAL_TOKENS,
    GPT2,
    GPT2_POSSESSIVE,
    GPT_NEOX_SPECIAL_TOKENS,
    GPT_OSS_SPECIAL_TOKENS,
    KIMI_K2,
    KIMI_K2_SPECIAL_TOKENS,
    LLAMA3,
    LLAMA3_SPECIAL_TOKENS,
    LLAMA4_SPECIAL_TOKENS,
    NANOCHAT,
    NANOCHAT_SPECIAL_TOKENS,
    NUMERIC,
    O200K,
    QWEN2,
    QWEN35,
    SMOLLM,
    SMOLLM_DIGITS,
    SMOLLM_SPECIAL_TOKENS,
    STARCODER_SPECIAL_TOKENS,
    SUPERBPE,
    TEKKEN,
    TEKKEN_SPECIAL_TOKENS,
)
from bpe.splitting.steps import ByteCharacters, Metaspace, PrefixSpace, Split, Step, tiktoken_steps


class Pattern(NamedTuple):
    """How text is split: a regular expression or several steps, and the core's scanner for it, if there is one."""

    name: str | None
    text: str
    """The regular expression, whose matches are the pretokens, as in tiktoken. Or a description of `steps`."""
    scanner: int | None = None
    special_tokens: tuple[str, ...] = ()
    """The special tokens of the vocabulary published with this pattern, in the order of their ids."""
    steps: tuple[Step, ...] | None = None
    """The steps that split a text where no regular expression alone does so."""

    @property
    def all_steps(self) -> tuple[Step, ...]:
        """The steps that split a text; for a regular expression, that is one step."""
        return tiktoken_steps(self.text) if self.steps is None else self.steps

    def splitter(self) -> _core.Splitter:
        """Return what splits text in the core: the scanner, or else the compiled steps.

        Raises:
            InputError: When a step is not a valid regular expression, or has a construct that is not supported.
        """
        return _splitter(self.all_steps if self.scanner is None else self.scanner)

    def compiled(self) -> _core.Splitter:
        """Return a splitter compiled from the steps, even if there is a scanner.

        Raises:
            InputError: When a step is not a valid regular expression, or has a construct that is not supported.
        """
        return _splitter(self.all_steps)

    def keeps(self, text: bytes) -> bool:
        """Return whether a text can be one pretoken, at least within a longer text."""
        return self.splitter().keeps(text)


@lru_cache(maxsize=64)
def _splitter(scanner_or_steps: int | tuple[Step, ...]) -> _core.Splitter:
    if isinstance(scanner_or_steps, int):
        return _core.Splitter.scanned(scanner_or_steps)
    from bpe.splitting.compile import compile_steps  # large, and not needed for a known pattern

    return compile_steps(scanner_or_steps)


def _described(step: Step) -> str:
    if isinstance(step, PrefixSpace):
        return "a space in front"
    if isinstance(step, ByteCharacters):
        return "a character for each byte" if step.direction == "to" else "a byte for each character"
    if isinstance(step, Metaspace):
        return f"{step.replacement!r} for spaces ({step.prepend_scheme} in front{', no split' * (not step.split)})"
    what = f"the text {step.pattern!r}" if step.dialect == "literal" else repr(step.pattern)
    return f"{what} ({step.behavior}{', inverted' * step.invert})"


def _stepped(name: str | None, steps: tuple[Step, ...], special_tokens: tuple[str, ...] = ()) -> Pattern:
    text = ", then ".join(map(_described, steps)) or "nothing"
    return Pattern(name, text, special_tokens=special_tokens, steps=steps)


# The scanners' numbers are those of `enum class Pattern` in core/kernels/pattern.hpp.
SCANNED = {
    "gpt2": Pattern("gpt2", GPT2, 0, ("<|endoftext|>",)),
    "cl100k": Pattern("cl100k", CL100K, 1, CL100K_SPECIAL_TOKENS),
    "llama3": Pattern("llama3", LLAMA3, 2, LLAMA3_SPECIAL_TOKENS),
    "qwen2": Pattern("qwen2", QWEN2, 3, ("<|endoftext|>", "<|im_start|>", "<|im_end|>")),
    "o200k": Pattern("o200k", O200K, 4, ("<|endoftext|>", "<|endofprompt|>")),
    "llama4": Pattern("llama4", O200K, 4, LLAMA4_SPECIAL_TOKENS),
    "smollm": Pattern("smollm", SMOLLM, 5, SMOLLM_SPECIAL_TOKENS),
    "gpt-neox": Pattern("gpt-neox", GPT2, 0, GPT_NEOX_SPECIAL_TOKENS),
    "mpt": Pattern("mpt", GPT2, 0, GPT_NEOX_SPECIAL_TOKENS),
    "starcoder": Pattern("starcoder", SMOLLM, 5, STARCODER_SPECIAL_TOKENS),
    "command-r": Pattern("command-r", SMOLLM, 5, COMMAND_R_SPECIAL_TOKENS),
    "glm4": Pattern("glm4", LLAMA3, 2, GLM4_SPECIAL_TOKENS),
    "gpt-oss": Pattern("gpt-oss", O200K, 4, GPT_OSS_SPECIAL_TOKENS),
}
"""The named patterns that have a scanner. Several have the same text; the first of them is the one found by it."""
PATTERNS = SCANNED | {
    "tekken": Pattern("tekken", TEKKEN, None, TEKKEN_SPECIAL_TOKENS),
    "qwen3.5": Pattern("qwen3.5", QWEN35, None, ("<|endoftext|>", "<|im_start|>", "<|im_end|>")),
    "nanochat": Pattern("nanochat", NANOCHAT, None, NANOCHAT_SPECIAL_TOKENS),
    "kimi-k2": Pattern("kimi-k2", KIMI_K2, None, KIMI_K2_SPECIAL_TOKENS),
    "deepseek-llm": _stepped("deepseek-llm", DEEPSEEK_LLM, DEEPSEEK_SPECIAL_TOKENS),
    "deepseek-coder": _stepped("deepseek-coder", DEEPSEEK_CODER, DEEPSEEK_SPECIAL_TOKENS),
    "deepseek-v3": _stepped("deepseek-v3", DEEPSEEK_V3, DEEPSEEK_SPECIAL_TOKENS),
    "falcon": _stepped("falcon", FALCON, FALCON_SPECIAL_TOKENS),
    "superbpe": _stepped("superbpe", SUPERBPE),
}
"""All patterns known by name."""
_BY_TEXT = {pattern.text: pattern for pattern in reversed(PATTERNS.values()) if pattern.steps is None}
_BY_TEXT[GPT2_POSSESSIVE] = PATTERNS["gpt2"]  # the same pattern as tiktoken words it
DIGITS_THEN_GPT2 = PATTERNS["smollm"]._replace(scanner=None, steps=(Split(SMOLLM_DIGITS, "tokenizers"),))
"""What SmolLM's tokenizer.json says. It differs from its expression in 13 numbers, which tiktoken does not know."""
_BY_STEPS: dict[tuple[Step, ...], Pattern] = {
    (Split(NUMERIC, "tokenizers"), Split(GPT2, "tokenizers")): DIGITS_THEN_GPT2,
    (Split(r"\p{N}", "tokenizers"), Split(GPT2, "tokenizers")): PATTERNS["smollm"],
    **{pattern.steps: pattern for pattern in PATTERNS.values() if pattern.steps is not None},
}


# Names that people may try, where the most similar name would be the wrong one, or none is similar.
_OTHER_NAMES = {"qwen2.5": "qwen2", "qwen3": "qwen2", "o200k_harmony": "gpt-oss", "pythia": "gpt-neox"}


def find_pattern(name_or_text: str) -> Pattern:
    """Return the pattern with this name or text. An unknown text is a regular expression as tiktoken takes it.

    Raises:
        InputError: When a word without any special character is given that is similar to a name.
        TypeError: When it is not a str, such as a compiled regular expression.

    >>> find_pattern("llama3").scanner
    2
    >>> find_pattern(r"\\S+|\\s+").splitter().split("some text")
    [b'some', b' ', b'text']
    """
    if not isinstance(name_or_text, str):
        raise TypeError(f"a split pattern is a str, not {type(name_or_text).__name__}")
    if name_or_text in PATTERNS:
        return PATTERNS[name_or_text]
    _refuse_misspelt(name_or_text)
    return _BY_TEXT.get(name_or_text, Pattern(None, name_or_text))


def pattern_of_steps(steps: Sequence[Step]) -> Pattern:
    """Return the pattern that splits by these steps: a known one if its text is known, or else one without a scanner.

    >>> pattern_of_steps([Split(GPT2, "tokenizers")]).name
    'gpt2'
    >>> pattern_of_steps([Split("x", "literal", "removed"), PrefixSpace()]).text
    "the text 'x' (removed), then a space in front"
    """
    steps = tuple(steps)
    only = steps[0] if len(steps) == 1 else None
    if isinstance(only, Split):
        # Where every character is part of a match, as with the known patterns, all three split alike.
        takes_all = (only.behavior, only.invert) in (("isolated", False), ("isolated", True), ("removed", True))
        text = FROM_ONIGURUMA.get(only.pattern, only.pattern) if only.dialect == "tokenizers" else only.pattern
        if takes_all and only.dialect != "literal" and text in _BY_TEXT:
            return _BY_TEXT[text]
        if only == tiktoken_steps(only.pattern)[0]:
            return find_pattern(only.pattern)
    return _BY_STEPS.get(steps) or _stepped(None, steps)


def _refuse_misspelt(text: str) -> None:
    """Refuse a word that is similar to a name; as a regular expression, it would match itself only."""
    if not text.replace("-", "").replace("_", "").replace(".", "").isalnum():
        return
    word = text.lower().removesuffix("_base")
    word = _OTHER_NAMES.get(word, word)
    meant = f"; did you mean {word}?" if word in PATTERNS else did_you_mean(word, PATTERNS)
    if meant:
        raise InputError(f"there is no split pattern {text!r}{meant}")
