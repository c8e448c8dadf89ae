"""The named split patterns, and the special tokens that go with each.

A pattern cuts text into pretokens; merges never cross a cut. Each pattern here has a scanner in the core, so none of
these texts is run by a regex engine. They are kept because a tokenizer file carries its pattern as text: that is how it
is recognised, and how a tokenizer of ours is handed to tiktoken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import regex

GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
GPT2_POSSESSIVE = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
# `tokenizers` cuts out the numbers first, each by itself, then splits each piece between them as GPT-2 does. As one
# expression on the whole text: all alternatives but the numbers' exclude numbers, so that only two rules see where a
# piece ends. ` ?\p{N}+` finds a number alone in its piece, without a space before it: `\p{N}`. `\s+(?!\S)` sees the end
# of its piece where the text ends or a number follows: it asks that nothing follows but white space or a number.
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
# Llama 4's: what begins and ends texts and turns; blocks for later training, vision and reasoning; spares.
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

# What begins a text, and what ends what a model writes, under the names that published vocabularies have for it.
BEGIN_TOKEN = "<|begin_of_text|>"
END_TOKENS = ("<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<|im_end|>", "<|eot|>", "<|eom|>")


class Pattern(NamedTuple):
    """How text is split: the pattern's text, and its place among the core's scanners, if it has one."""

    name: str | None
    text: str
    scanner: int | None = None
    special_tokens: tuple[str, ...] = ()
    """What the vocabularies published with this pattern define, in the order of their ids."""

    def compile(self) -> regex.Pattern[str]:
        """The pattern for the ``regex`` module: the slow path, for patterns without a scanner.

        Its Unicode version is newer than the scanners' and tiktoken's, so that characters which Unicode has added since
        may be split otherwise.

        Raises:
            ValueError: the text is no regular expression.
        """
        import regex

        try:
            return regex.compile(self.text)
        except regex.error as error:
            raise ValueError(f"the split pattern {self.text!r} does not compile: {error}") from error


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
_BY_TEXT = {pattern.text: pattern for name, pattern in PATTERNS.items() if name != "llama4"}  # whose text is o200k's
_BY_TEXT[GPT2_POSSESSIVE] = PATTERNS["gpt2"]  # tiktoken's wording of it


def find_pattern(name_or_text: str) -> Pattern:
    """The pattern with this name or this text; for a text not known here, one without a scanner.

    >>> find_pattern("llama3").scanner
    2
    >>> find_pattern(r"\\S+|\\s+").scanner is None
    True
    """
    if name_or_text in PATTERNS:
        return PATTERNS[name_or_text]
    return _BY_TEXT.get(name_or_text, Pattern(None, name_or_text))
