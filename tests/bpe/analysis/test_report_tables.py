"""The tables of a report."""

from __future__ import annotations

from typing import Any

from bpe import Tokenizer
from bpe.analysis.report import (
    report_of,
)
from bpe.analysis.report_tables import report_tables
from bpe.analysis.usage import usage_of
from support.references import BYTE_RANKS


def test_report_tables_have_a_column_per_text_or_only_their_sum(found: dict[str, Any], gpt2: Tokenizer) -> None:
    titles = [table.title for table in report_tables(found)]
    assert titles[:4] == ["Texts", "Bytes per token as the vocabulary grows", "Token lengths", "Scripts"]
    growth = list(report_tables(found))[1]
    assert growth.header == ["vocabulary", "training", "prose.txt", "sentences/th.txt", "held out"]
    assert [row[0] for row in growth.rows] == ["256", "512", "1,024", "2,048", "3,999"]
    many = report_of(gpt2, [usage_of(gpt2, [b"a tale"], str(n)) for n in range(9)])
    assert len(next(report_tables(many)).rows) == 10
    assert list(report_tables(many))[1].header == ["vocabulary", "all texts"]
    assert [table.title for table in report_tables(report_of(gpt2, []))] == [
        *("Token lengths", "Scripts", "Longest tokens, in the vocabulary"),
    ]


def test_long_runs_and_broken_characters_are_abbreviated() -> None:
    tokens = {"-" * 60: "'-{60}'", "\u3000" * 32: r"'\u3000{32}'", "\t" * 20 + "x": r"'\t{20}x'", "1" * 9: "'1{9}'"}
    ranks = BYTE_RANKS | {token.encode(): 256 + number for number, token in enumerate(tokens)} | {b"\xe6\x97": 300}
    tokenizer = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={})
    shown = list(report_tables(report_of(tokenizer, [])))[-1].rows
    assert {row[0] for row in shown} >= {*tokens.values(), r"'\xe6\x97'"}
