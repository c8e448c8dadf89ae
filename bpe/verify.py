"""Hold a tokenizer against its reference: tiktoken's ``Encoding`` with the same ranks, pattern and special tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import zip_longest

from .errors import InputError
from .tokenizer import Tokenizer

# What tokenizers stumble over: contractions in both cases and with the long s, digits in threes, white space that ends
# a text or stands before a newline, characters of several bytes and code points, NULs, and pretokens that look alike.
HARD_CASES = (
    "",
    " ",
    "  ",
    "\n",
    " \n ",
    "\r\n\r\n",
    "a  b   c",
    "text \n \n  ",
    "can't CAN'T we'LL 'ſ 'Re '",
    "1 12 123 1234 12345 ١٢٣٤ Ⅷ½",
    "x\u00a0y\u3000z\u2028\u0085.",
    "naïve na\u0131ve e\u0301\u0323 \u200d\ufe0f",
    "👩‍👩‍👧‍👦🇫🇷🏽",
    "日本語のテキスト。한국어 हिन्दी ไทย العربية",
    "X\0 X\0\0 \0",
    "\U0001d518\U0010ffff\ufffd\ue000",
    "!?!?\n\n...\r\n",
    "<|begin_of_text|><|endoftext|>",
    "\ud83d\ude00 \ud83d lone",
    "a" * 3000,
    " " * 3000 + "x",
    "\n" * 3000,
    "ab" * 1500 + "中" * 1000,
)


@dataclass
class Report:
    """What was compared, and the first document that differs."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    not_utf8: int = 0
    reference_failed: int = 0
    differing: int = 0
    first_difference: str | None = None


def verify(tokenizer: Tokenizer, texts: Iterable[bytes], progress: Callable[[Report], None] | None = None) -> Report:
    """Compare ids, and decoded bytes, on the built-in hard cases and on `texts`.

    Text that is not UTF-8 cannot be given to the reference; there only the round trip is checked. Where the reference
    itself breaks down, as it does on very long runs, the text is counted and passed over likewise.

    Raises:
        ModuleNotFoundError: tiktoken is not installed (it comes with the extra ``verify``).
    """
    import tiktoken

    reference = tiktoken.Encoding(
        tokenizer.name,
        pat_str=tokenizer.pattern.text,
        mergeable_ranks=tokenizer.mergeable_ranks,
        special_tokens=tokenizer.special_tokens,
    )
    report = Report()
    cases = [(f"hard case {number}", text) for number, text in enumerate(HARD_CASES, 1)]
    for place, text in cases:
        _compare(tokenizer, reference.encode_ordinary, place, text, report)
    for number, content in enumerate(texts, 1):
        try:
            _compare(tokenizer, reference.encode_ordinary, f"document {number}", content.decode(), report)
        except UnicodeDecodeError:
            report.not_utf8 += 1
            _check_round_trip(tokenizer.encode_ordinary(content), tokenizer, f"document {number}", content, report)
        if progress is not None:
            progress(report)
    return report


def _compare(
    tokenizer: Tokenizer, reference: Callable[[str], list[int]], place: str, text: str, report: Report
) -> None:
    ours = tokenizer.encode_ordinary(text)
    content = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    _check_round_trip(ours, tokenizer, place, content, report)
    try:
        theirs = reference(text)
    except BaseException as error:  # the Rust panic that its engine's stack overflow makes is no Exception
        if type(error).__name__ != "PanicException":
            raise
        report.reference_failed += 1
        return
    if ours == theirs:
        return
    pairs = enumerate(zip_longest(ours, theirs))
    at, (our_id, their_id) = next((at, pair) for at, pair in pairs if pair[0] != pair[1])
    before = len(tokenizer.decode_bytes(ours[:at]))
    _differ(report, f"{place}, token {at}, byte {before}: {our_id} here, {their_id} in the reference")


def _check_round_trip(ids: list[int], tokenizer: Tokenizer, place: str, content: bytes, report: Report) -> None:
    report.documents += 1
    report.bytes += len(content)
    report.tokens += len(ids)
    if tokenizer.decode_bytes(ids) != content:
        _differ(report, f"{place}: decoding does not give the text back")


def _differ(report: Report, difference: str) -> None:
    report.differing += 1
    if report.first_difference is None:
        report.first_difference = difference


def require_identical(report: Report) -> None:
    """Raise InputError if anything differed."""
    if report.differing:
        raise InputError(f"{report.differing} documents differ from the reference; first {report.first_difference}")
