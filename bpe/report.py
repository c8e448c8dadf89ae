"""What a vocabulary has learned, and what it does on texts: as numbers, tables, and a directory with plots."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .files import replacing, write_bytes, write_json
from .tokenizer import Tokenizer
from .usage import CLASSES, Counts, Usage, Vocabulary, total, usage_of, without_special_tokens

# Token lengths in bytes that share a row of a table: from, to.
LENGTHS = [*((size, size) for size in range(1, 9)), (9, 12), (13, 16), (17, None)]

# Up to so many texts have a column or a curve each; of more, the sum is shown.
APART = 6

NOTES = """\
- bytes/token, chars/token: how much text a token stands for. Characters are Unicode code points.
- tokens/word: the fertility of Ács (2019) and Rust et al. (2021): tokens that hold a byte of a word, over all words. A
  word is a longest run of letters and marks. Letters of scripts without spaces between words (Chinese, Japanese, Thai,
  ...) make no words.
- split words: the share of words of several tokens, which Rust et al. (2021) call continued words.
- whole words: the share of the text's tokens that hold a word from beginning to end.
- unused: the share of the vocabulary, special tokens apart, that the text never uses.
- As the vocabulary grows: what its lowest ranks alone would make of the text, so many of them.
"""


def report_of(tokenizer: Tokenizer, texts: Iterable[Usage], training: Usage | None = None) -> dict[str, Any]:
    """Everything that is known of a vocabulary and of its use, as it stands in report.json.

    Args:
        tokenizer: whose vocabulary it is.
        texts: its use on texts, held out from training where there was one; see `bpe.usage.usage_of`. They may come
            one by one, since none is kept.
        training: its use on the text that it was trained on.

    Returns:
        "tokenizer": what it is; "vocabulary": its tokens; "training": the use on the training text, or None;
        "texts": the use on each text; "all_texts": that on all of them together, or None if there are none.
    """
    vocabulary = Vocabulary(tokenizer)
    special_tokens = len(tokenizer.special_tokens)
    tokens = int(vocabulary.is_token.sum())
    uses = []
    everything: Usage | None = None
    for usage in texts:
        uses.append(_use(vocabulary, usage))
        everything = usage if everything is None else total([everything, usage], "all texts")
    if everything is not None and training is not None:
        everything = replace(everything, name="held out")
    return {
        "tokenizer": {
            "name": tokenizer.name,
            "vocabulary": tokens + special_tokens,
            "special_tokens": special_tokens,
            "merges": tokenizer._core.pair_count,
            "pattern": tokenizer.pattern.text,
        },
        "vocabulary": {
            "tokens": tokens,
            "mean_bytes": int(vocabulary.sizes.sum()) / tokens,
            "lengths": _lengths(vocabulary, vocabulary.is_token),
            "classes": _classes(vocabulary, vocabulary.is_token),
            "longest": _longest(vocabulary, vocabulary.is_token),
        },
        "training": None if training is None else _use(vocabulary, training),
        "texts": uses,
        "all_texts": None if everything is None else _use(vocabulary, everything),
    }


def measures(vocabulary: Vocabulary, usage: Usage) -> dict[str, Any]:
    """The single numbers of a vocabulary's use on a text; None where the text has nothing to tell."""
    counts = usage.counts
    if len(counts) != len(vocabulary.sizes):
        raise ValueError(f"counts has {len(counts)} entries for {len(vocabulary.sizes)} ids")
    tokens, size, characters = int(counts.sum()), int(counts @ vocabulary.sizes), int(counts @ vocabulary.characters)
    in_vocabulary = int(vocabulary.is_token.sum())
    used = int((counts > 0).sum())
    words = usage.words
    return {
        "name": usage.name,
        "documents": usage.documents,
        "bytes": size,
        "characters": characters,
        "tokens": tokens,
        "bytes_per_token": _ratio(size, tokens),
        "characters_per_token": _ratio(characters, tokens),
        "words": words and words.count,
        "tokens_per_word": words and _ratio(words.tokens, words.count),
        "continued_words": words and _ratio(words.count - int(words.whole.sum()), words.count),
        "whole_word_tokens": _ratio(int(words.whole.sum()), tokens) if words and words.count else None,
        "never_used": in_vocabulary - used,
        "never_used_share": 1 - used / in_vocabulary,
        "renyi_efficiency": renyi_efficiency(counts, in_vocabulary),
    }


def renyi_efficiency(counts: Counts, tokens: int, alpha: float = 2.5) -> float | None:
    """The Rényi entropy of how tokens are used, over that of all `tokens` used alike: from 0 to 1.

    Zouhar et al., "Tokenization and the Noiseless Channel" (ACL 2023), who found 2.5 to be the order that goes best
    with how well models translate.
    """
    used = counts[counts > 0]
    if not len(used) or tokens < 2:
        return None
    return float(np.log(np.sum((used / used.sum()) ** alpha)) / (1 - alpha) / np.log(tokens))


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None


def _use(vocabulary: Vocabulary, usage: Usage) -> dict[str, Any]:
    counts = usage.counts
    growth = vocabulary.growth(counts)
    at = _spaced(len(growth), 256)
    size = int(counts @ vocabulary.sizes)
    ranked = np.sort(counts[counts > 0])[::-1]
    ranks = _spaced(len(ranked), 1)
    unused = vocabulary.is_token & (counts == 0)
    result = measures(vocabulary, usage) | {
        "lengths": _lengths(vocabulary, counts),
        "classes": _classes(vocabulary, counts),
        "growth": {
            "vocabulary": (256 + at).tolist(),
            "tokens": growth[at].tolist(),
            "bytes_per_token": [_ratio(size, tokens) for tokens in growth[at].tolist()],
        },
        "frequencies": {"rank": (1 + ranks).tolist(), "count": ranked[ranks].tolist()},
        "longest_used": _longest(vocabulary, counts),
        "first_never_used": [_token(vocabulary, id) for id in np.flatnonzero(unused & (vocabulary.sizes > 1))[:10]],
    }
    if usage.words is not None:
        # A token may begin a word here and be one there; what it mostly is counts.
        mostly = (2 * usage.words.whole > counts) & (counts > 0)
        result["tokens_mostly_whole_words"] = int(mostly.sum())
    return result


def _spaced(count: int, first: int, points: int = 250) -> npt.NDArray[np.int64]:
    """Places from 0 to count - 1, evenly spaced in the logarithm of first + place, and with both ends."""
    if not count:
        return np.zeros(0, np.int64)
    spaced = np.geomspace(first, first + count - 1, points).round().astype(np.int64) - first
    doublings = first * 2 ** np.arange(64 - first.bit_length()) - first  # what tables show
    return np.unique(np.concatenate((spaced, doublings[doublings < count])))


def _lengths(vocabulary: Vocabulary, weights: npt.NDArray[Any]) -> dict[str, int]:
    """How many tokens, or uses of tokens, there are of each length in bytes."""
    counts = np.zeros(int(vocabulary.sizes.max()) + 1, np.int64)
    np.add.at(counts, vocabulary.sizes, weights)
    return {str(size): int(counts[size]) for size in np.flatnonzero(counts)}


def _classes(vocabulary: Vocabulary, weights: npt.NDArray[Any]) -> dict[str, int]:
    """How many tokens, or uses of tokens, there are of each class; the most first."""
    counts = np.zeros(len(CLASSES), np.int64)
    np.add.at(counts, vocabulary.classes, weights)
    return {CLASSES[kind]: int(counts[kind]) for kind in np.argsort(-counts, kind="stable") if counts[kind]}


def _longest(vocabulary: Vocabulary, weights: npt.NDArray[Any], count: int = 10) -> list[dict[str, Any]]:
    order = np.argsort(np.where(weights > 0, -vocabulary.sizes, 0), kind="stable")[:count]
    return [_token(vocabulary, id) for id in order if weights[id]]


def _token(vocabulary: Vocabulary, id: int) -> dict[str, Any]:
    token = vocabulary.tokens[id]
    return {"id": int(id), "text": token.decode("utf-8", "backslashreplace"), "bytes": len(token)}


# --- tables ---


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; the first column is set to the left, the others to the right."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """For a terminal: columns with two spaces between."""
        table = self._printable()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = []
        for row in table:
            first, *others = zip(row, widths, strict=True)
            cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
            lines.append("  ".join(cells).rstrip() + "\n")
        return "".join(lines)

    def markdown(self) -> str:
        """The same as a table of Markdown, under its title."""
        header, *rows = ([cell.replace("|", r"\|") for cell in row] for row in self._printable())
        rule = [":--", *("--:" for _ in header[1:])]
        lines = [f"| {' | '.join(row)} |\n" for row in (header, rule, *rows)]
        return f"## {printable(self.title)}\n\n" + "".join(lines)

    def _printable(self) -> list[list[str]]:
        return [[printable(cell) for cell in row] for row in (self.header, *self.rows)]


def printable(name: str) -> str:
    """A name without line breaks, escape codes and bytes that are not UTF-8, all of which file names may hold."""
    return "".join(character if character.isprintable() else "?" for character in name)


def tables(report: Mapping[str, Any]) -> Iterator[Table]:
    """What a person wants to see of a report."""
    uses = [use for use in (report["training"], *report["texts"]) if use is not None]
    if len(report["texts"]) > 1:
        uses.append(report["all_texts"])
    shown = [use for use in (report["training"], report["all_texts"]) if use is not None]
    if uses:
        yield Table("Texts", _MEASURES_HEADER, [_measures_row(use) for use in uses])
        yield _growth_table(uses if len(uses) <= APART else shown)
    yield _share_table("Token lengths", "bytes", report["vocabulary"], shown, _by_length)
    yield _share_table("Scripts", "script", report["vocabulary"], shown, lambda part: part["classes"])
    yield _token_table("Longest tokens", "in the vocabulary", report["vocabulary"]["longest"])
    for use in shown:
        yield _token_table("Longest tokens used", use["name"], use["longest_used"])
        if use["first_never_used"]:
            yield _token_table("Lowest tokens never used", use["name"], use["first_never_used"])


_MEASURES_HEADER = (
    *("text", "bytes", "tokens", "bytes/token", "chars/token", "tokens/word", "split words", "whole words", "unused"),
)


def _measures_row(use: Mapping[str, Any]) -> list[str]:
    return [
        use["name"],
        f"{use['bytes']:,}",
        f"{use['tokens']:,}",
        decimal(use["bytes_per_token"]),
        decimal(use["characters_per_token"]),
        decimal(use["tokens_per_word"]),
        percent(use["continued_words"]),
        percent(use["whole_word_tokens"]),
        percent(use["never_used_share"]),
    ]


def decimal(value: float | None) -> str:
    """With two digits behind the point, or a dash for what is not known."""
    return "–" if value is None else f"{value:.2f}"


def percent(share: float | None) -> str:
    """With one digit behind the point, or a dash for what is not known."""
    return "–" if share is None else f"{share:.1%}"


def _growth_table(uses: Sequence[Mapping[str, Any]]) -> Table:
    sizes = uses[0]["growth"]["vocabulary"]
    chosen = [256 << n for n in range(64) if 256 << n < sizes[-1]] + [sizes[-1]]
    rows = []
    for size in chosen:
        at = sizes.index(size)
        rows.append([f"{size:,}", *(decimal(use["growth"]["bytes_per_token"][at]) for use in uses)])
    return Table("Bytes per token as the vocabulary grows", ["vocabulary", *(use["name"] for use in uses)], rows)


def _by_length(part: Mapping[str, Any]) -> dict[str, int]:
    binned = {}
    for first, last in LENGTHS:
        name = str(first) if first == last else f"{first} to {last}" if last else f"{first} or more"
        binned[name] = sum(n for size, n in part["lengths"].items() if first <= int(size) <= (last or int(size)))
    return binned


def _share_table(title: str, label: str, vocabulary: Any, uses: Sequence[Any], counts_of: Any) -> Table:
    columns = [counts_of(part) for part in (vocabulary, *uses)]
    totals = [sum(column.values()) for column in columns]
    rows = []
    for name, count in columns[0].items():
        shares = [percent(_ratio(column.get(name, 0), sum_)) for column, sum_ in zip(columns, totals, strict=True)]
        rows.append([name, f"{count:,}", *shares])
    return Table(title, [label, "tokens", "vocabulary", *(use["name"] for use in uses)], rows)


def _token_table(title: str, name: str, tokens: Sequence[Mapping[str, Any]]) -> Table:
    rows = [[_shown(token["text"]), f"{token['bytes']:,}", str(token["id"])] for token in tokens]
    return Table(f"{title}, {name}", ["token", "bytes", "id"], rows)


def _shown(text: str, width: int = 48) -> str:
    """The text as Python writes it, with long runs as regular expressions have them: ' -{79}'."""
    text = re.sub(r"((?:\\\\|\\[^\\][0-9a-f]*|[^\\]))\1{7,}", _run, repr(text).replace(r"\\x", r"\x"))
    return text if len(text) <= width else text[: width - 3] + "..."


def _run(match: re.Match[str]) -> str:
    return f"{match[1]}{{{len(match[0]) // len(match[1])}}}"


# --- files ---


def check_directory(directory: str | os.PathLike[str]) -> None:
    """Make the directory of a report, and see that plots can be drawn: to be called before the work of an hour.

    Raises:
        OSError: the directory cannot be made.
        ModuleNotFoundError: matplotlib is not installed (it comes with the extra ``report``).
    """
    import matplotlib  # noqa: F401

    Path(directory).mkdir(parents=True, exist_ok=True)


def write_report(report: Mapping[str, Any], directory: str | os.PathLike[str]) -> list[Path]:
    """Write report.json, report.md and the plots into a directory, which is made. Returns the paths.

    Raises: as `check_directory`.
    """
    from .plots import PLOTS

    check_directory(directory)
    folder = Path(directory)
    images = []
    for name, plot in PLOTS.items():
        figure = plot(report)
        if figure is not None:
            with replacing(folder / f"{name}.png") as temporary:
                figure.savefig(temporary, format="png")
            images.append(folder / f"{name}.png")
    write_json(folder / "report.json", report)
    write_bytes(folder / "report.md", markdown(report, [path.name for path in images]).encode())
    return [folder / "report.json", folder / "report.md", *images]


def write_training_report(
    directory: str | os.PathLike[str],
    tokenizer: Tokenizer,
    counts: npt.NDArray[Any],
    held_out: Iterable[tuple[str, Iterable[bytes]]] = (),
) -> dict[str, Any]:
    """`write_report` for a vocabulary that was just trained. Returns the report.

    Args:
        directory: where the files go; see `check_directory`, which is to be called before the training.
        tokenizer: what came of it.
        counts: how often each token stands in the training text, by id; those of special tokens may be left out.
        held_out: names and documents of texts that were not trained on. As in training, special tokens in them are
            boundaries.
    """
    training = Usage("training", np.asarray(counts, np.int64)[: tokenizer._core.id_limit])
    texts = (usage_of(tokenizer, without_special_tokens(tokenizer, documents), name) for name, documents in held_out)
    report = report_of(tokenizer, texts, training)
    write_report(report, directory)
    return report


def markdown(report: Mapping[str, Any], images: Sequence[str] = ()) -> str:
    """The tables, what their columns mean, and the plots, as one document."""
    about = report["tokenizer"]
    title = (
        f"# {printable(about['name'])}\n\n{about['vocabulary']:,} tokens, {about['special_tokens']:,} of them special;"
        f" {report['vocabulary']['mean_bytes']:.2f} bytes in the mean.\n"
    )
    parts = [title, *(table.markdown() for table in tables(report))]
    if report["all_texts"] is not None:
        parts[1] += "\n" + NOTES
    if images:
        parts.append("## Plots\n\n" + "".join(f"![{Path(image).stem}]({image})\n" for image in images))
    return "\n".join(parts)
