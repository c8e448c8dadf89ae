"""The named split patterns, and the special tokens of the vocabularies that use them.

A pattern splits text into pretokens; merges never cross the border of a pretoken. Each pattern here has a scanner in
the core. Its text is needed because a tokenizer file contains its pattern as text: the text identifies the pattern of a
file, and is written to files and given to tiktoken. All other patterns are compiled for the core; see `bpe.splitting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from bpe import _core
from bpe.errors import InputError, did_you_mean
from bpe.splitting.steps import Metaspace, PrefixSpace, Split, Step, tiktoken_steps

GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
GPT2_POSSESSIVE = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
# `tokenizers` first splits off each digit, then splits each piece between them as GPT-2 does. This is the same as one
# expression on the whole text. Except for the one for numbers, all alternatives exclude numbers, so only two of them
# depend on where a piece ends. ` ?\p{N}+` finds a number alone in its piece, without a space before it: `\p{N}`. The
# piece of `\s+(?!\S)` ends at the end of the text and before a number: only white space or a number may follow.
SMOLLM = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"""
CL100K = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
    r"""|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""
)
LLAMA3 = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
    r"""|\s*[\r\n]+|\s+(?!\S)|\s+"""
)

QWEN2 = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
    r"""|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
O200K = (
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
    r"""|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
    r"""|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)

# tokenizers runs patterns on Oniguruma, where "{1,3}+" means a repetition of "{1,3}" and "$" the end of a line.
FOR_ONIGURUMA = {CL100K: CL100K.replace("{1,3}+", "{1,3}").replace("$", r"\z")}
FROM_ONIGURUMA = {theirs: ours for ours, theirs in FOR_ONIGURUMA.items()}
# What `tokenizers` calls numeric: all that Rust's char::is_numeric knows. Oniguruma's Unicode version is older.
NUMERIC = r"[\p{N}\x{11DE0}-\x{11DE9}\x{16FF4}-\x{16FF6}]"

LLAMA3_SPECIAL_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    "<|image|>",
    *(f"<|reserved_special_token_{i}|>" for i in range(2, 246)),
)
# Llama 4's: the beginnings and ends of texts and turns; blocks for post-training, vision and reasoning; reserves.
LLAMA4_SPECIAL_TOKENS = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
    *("<|header_start|>", "<|header_end|>", "<|eom|>", "<|eot|>", "<|step|>"),
    *(f"<|text_post_train_reserved_special_token_{i}|>" for i in range(6)),
    *("<|python_start|>", "<|python_end|>", "<|finetune_right_pad|>"),
    *(f"<|text_post_train_reserved_special_token_{i}|>" for i in range(8, 69)),
    *("<|image_start|>", "<|image_end|>"),
    *(f"<|vision_reserved_special_token_{i}|>" for i in range(2)),
    *("<|tile_x_separator|>", "<|tile_y_separator|>"),
    *(f"<|vision_reserved_special_token_{i}|>" for i in range(2, 6)),
    *("<|image|>", "<|vision_reserved_special_token_6|>", "<|patch|>"),
    *(f"<|vision_reserved_special_token_{i}|>" for i in range(7, 1048)),
    *(f"<|reasoning_reserved_special_token_{i}|>" for i in range(8)),
    *("<|reasoning_thinking_start|>", "<|reasoning_thinking_end|>"),
    *(f"<|reserved_special_token_{i}|>" for i in range(904)),
)
SMOLLM_SPECIAL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>", "<filename>"),
    *("<gh_stars>", "<issue_start>", "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>"),
    *("<jupyter_code>", "<jupyter_output>", "<jupyter_script>", "<empty_output>"),
)
CL100K_SPECIAL_TOKENS = ("<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|endofprompt|>")


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


# The scanners' numbers are those of `enum class Pattern` in core/kernels/pattern.hpp.
PATTERNS = {
    "gpt2": Pattern("gpt2", GPT2, 0, ("<|endoftext|>",)),
    "cl100k": Pattern("cl100k", CL100K, 1, CL100K_SPECIAL_TOKENS),
    "llama3": Pattern("llama3", LLAMA3, 2, LLAMA3_SPECIAL_TOKENS),
    "qwen2": Pattern("qwen2", QWEN2, 3, ("<|endoftext|>", "<|im_start|>", "<|im_end|>")),
    "o200k": Pattern("o200k", O200K, 4, ("<|endoftext|>", "<|endofprompt|>")),
    "llama4": Pattern("llama4", O200K, 4, LLAMA4_SPECIAL_TOKENS),
    "smollm": Pattern("smollm", SMOLLM, 5, SMOLLM_SPECIAL_TOKENS),
}
_BY_TEXT = {pattern.text: pattern for name, pattern in PATTERNS.items() if name != "llama4"}  # has o200k's text
_BY_TEXT[GPT2_POSSESSIVE] = PATTERNS["gpt2"]  # the same pattern as tiktoken words it
_BY_STEPS: dict[tuple[Step, ...], Pattern] = {
    (Split(NUMERIC, "tokenizers"), Split(GPT2, "tokenizers")): PATTERNS["smollm"],
    **{pattern.steps: pattern for pattern in PATTERNS.values() if pattern.steps is not None},
}


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
    return _BY_STEPS.get(steps) or Pattern(None, ", then ".join(map(_described, steps)) or "nothing", steps=steps)


def _described(step: Step) -> str:
    if isinstance(step, PrefixSpace):
        return "a space in front"
    if isinstance(step, Metaspace):
        return f"{step.replacement!r} for spaces ({step.prepend_scheme} in front{', no split' * (not step.split)})"
    what = f"the text {step.pattern!r}" if step.dialect == "literal" else repr(step.pattern)
    return f"{what} ({step.behavior}{', inverted' * step.invert})"


def _refuse_misspelt(text: str) -> None:
    """Refuse a word that is similar to a name; as a regular expression, it would match itself only."""
    if not text.replace("-", "").replace("_", "").replace(".", "").isalnum():
        return
    word = text.lower().removesuffix("_base")
    meant = f"; did you mean {word}?" if word in PATTERNS else did_you_mean(word, PATTERNS)
    if meant:
        raise InputError(f"there is no split pattern {text!r}{meant}")
