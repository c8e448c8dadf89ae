"""Split patterns as published with vocabularies, and a few that show where engines differ."""

from __future__ import annotations

from bpe.patterns import PATTERNS

PUBLISHED = {name: pattern.text for name, pattern in PATTERNS.items() if pattern.steps is None}
PUBLISHED |= {
    "tekken-like": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?"
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "deepseek-v3": r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"""
    r""" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
    "cjk": r"[一-龥぀-ゟ゠-ヿ]+",
    "kimi": r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "set-operation": r"[\p{L}&&[^a-z]]+|[a-z]+|\P{L}+",
    "posix": r"[[:alpha:]]+|.",
    "boundaries": r"\b\w+\b|\B.|$",
    "numbers": r"\p{N}{1,3}+(?=\d)|(?<!\p{N})\d$|^-",
}
