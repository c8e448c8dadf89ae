"""Reports on a vocabulary and its use on texts: as numbers, and as a directory with tables and plots."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bpe.analysis.plots import draw_plots
from bpe.analysis.report_tables import VocabularyReport, markdown
from bpe.analysis.scripts import CLASSES
from bpe.analysis.tables import ratio
from bpe.analysis.token_arrays import Counts, TokenArrays
from bpe.analysis.usage import Usage, total, usage_of, without_special_tokens
from bpe.drawing import INSTALL, PictureSettings, is_available
from bpe.errors import InputError
from bpe.files import write_bytes, write_json
from bpe.progress import phase
from bpe.tokenizer import Tokenizer


def report_of(tokenizer: Tokenizer, texts: Iterable[Usage], training: Usage | None = None) -> dict[str, Any]:
    """Return all measures of a vocabulary and its use, in the form of report.json.

    Args:
        tokenizer: The tokenizer with the vocabulary.
        texts: The usage of texts, held out from training if there was any; see `bpe.analysis.usage.usage_of`. An
            iterator may compute them one at a time, because none is kept.
        training: The usage of the training text.

    Returns:
        A dict with "tokenizer", its properties; "vocabulary", its tokens; "training", its use on the training text, or
        None; "texts", its use on each text; and "all_texts", its use on all texts together, or None if there are none.
    """
    vocabulary = TokenArrays(tokenizer)
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
            "vocabulary": tokenizer.vocabulary.token_count,
            "special_tokens": special_tokens,
            "merges": tokenizer.vocabulary.merge_count,
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


def measures(vocabulary: TokenArrays, usage: Usage) -> dict[str, Any]:
    """Return the measures of a vocabulary's use on a text that are single numbers, or None if undefined."""
    counts = usage.counts
    if len(counts) != len(vocabulary.sizes):
        raise ValueError(f"counts has {len(counts)} entries for {len(vocabulary.sizes)} ids")
    tokens = int(counts.sum())
    size, characters = usage.size or (int(counts @ vocabulary.sizes), int(counts @ vocabulary.characters))
    in_vocabulary = int(vocabulary.is_token.sum())
    used = int(((counts > 0) & vocabulary.is_token).sum())
    words = usage.words
    return {
        "name": usage.name,
        "documents": usage.documents,
        "bytes": size,
        "characters": characters,
        "tokens": tokens,
        "bytes_per_token": ratio(size, tokens),
        "characters_per_token": ratio(characters, tokens),
        "words": words and words.count,
        "tokens_per_word": words and ratio(words.tokens, words.count),
        "continued_words": words and ratio(words.count - int(words.whole.sum()), words.count),
        "whole_word_tokens": ratio(int(words.whole.sum()), tokens) if words and words.count else None,
        "never_used": in_vocabulary - used,
        "never_used_share": 1 - used / in_vocabulary,
        "renyi_efficiency": renyi_efficiency(counts, in_vocabulary),
    }


def renyi_efficiency(counts: Counts, tokens: int, alpha: float = 2.5) -> float | None:
    """Return the Rényi entropy of the use of tokens, divided by that of uniform use. From 0 to 1.

    Zouhar et al., "Tokenization and the Noiseless Channel" (ACL 2023), found that the efficiency of order 2.5
    correlates best with the quality of translation models.

    Args:
        counts: How often each token is used. [ids]
        tokens: The number of tokens in the vocabulary.
        alpha: The order of the entropy.

    Returns:
        The efficiency, or None if no token is used.
    """
    used = counts[counts > 0]
    if not len(used) or tokens < 2:
        return None
    return float(np.log(np.sum((used / used.sum()) ** alpha)) / (1 - alpha) / np.log(tokens))


def _use(vocabulary: TokenArrays, usage: Usage) -> dict[str, Any]:
    counts = usage.counts
    growth = vocabulary.growth(counts)
    at = _spaced(len(growth), 256)
    size = usage.size[0] if usage.size is not None else int(counts @ vocabulary.sizes)
    ranked = np.sort(counts[counts > 0])[::-1]
    ranks = _spaced(len(ranked), 1)
    unused = vocabulary.is_token & (counts == 0)
    result = measures(vocabulary, usage) | {
        "lengths": _lengths(vocabulary, counts),
        "classes": _classes(vocabulary, counts),
        "growth": {
            "vocabulary": (256 + at).tolist(),
            "tokens": growth[at].tolist(),
            "bytes_per_token": [ratio(size, tokens) for tokens in growth[at].tolist()],
        },
        "frequencies": {"rank": (1 + ranks).tolist(), "count": ranked[ranks].tolist()},
        "longest_used": _longest(vocabulary, counts),
        "first_never_used": [_token(vocabulary, id) for id in np.flatnonzero(unused & (vocabulary.sizes > 1))[:10]],
    }
    if usage.words is not None:
        # A token may begin a word in one place and be a word in another; the more frequent case counts.
        mostly = (2 * usage.words.whole > counts) & (counts > 0)
        result["tokens_mostly_whole_words"] = int(mostly.sum())
    return result


def _spaced(count: int, first: int, points: int = 250) -> npt.NDArray[np.int64]:
    """Return indices from 0 to count - 1, evenly spaced in the logarithm of first + index, including both ends."""
    if not count:
        return np.zeros(0, np.int64)
    spaced = np.geomspace(first, first + count - 1, points).round().astype(np.int64) - first
    doublings = first * 2 ** np.arange(64 - first.bit_length()) - first  # the rows of tables
    return np.unique(np.concatenate((spaced, doublings[doublings < count])))


def _lengths(vocabulary: TokenArrays, weights: npt.NDArray[Any]) -> dict[str, int]:
    """Return how many tokens, or uses of tokens, there are of each length in bytes."""
    counts = np.zeros(int(vocabulary.sizes.max()) + 1, np.int64)
    np.add.at(counts, vocabulary.sizes, weights)
    return {str(size): int(counts[size]) for size in np.flatnonzero(counts)}


def _classes(vocabulary: TokenArrays, weights: npt.NDArray[Any]) -> dict[str, int]:
    """Return how many tokens, or uses of tokens, there are of each class, the most frequent first."""
    counts = np.zeros(len(CLASSES), np.int64)
    np.add.at(counts, vocabulary.classes, weights)
    return {CLASSES[kind]: int(counts[kind]) for kind in np.argsort(-counts, kind="stable") if counts[kind]}


def _longest(vocabulary: TokenArrays, weights: npt.NDArray[Any], count: int = 10) -> list[dict[str, Any]]:
    order = np.argsort(np.where(weights > 0, -vocabulary.sizes, 0), kind="stable")[:count]
    return [_token(vocabulary, id) for id in order if weights[id]]


def _token(vocabulary: TokenArrays, id: int) -> dict[str, Any]:
    token = vocabulary.tokens[id]
    return {"id": int(id), "text": token.decode("utf-8", "backslashreplace"), "bytes": len(token)}


def check_directory(directory: str | os.PathLike[str]) -> None:
    """Create the directory of a report. Call it before long work.

    Raises:
        InputError: When a file is in the way.
        OSError: When the directory cannot be created.
    """
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{directory}: a file is in the way; name another directory for the report") from error


def write_report(
    report: VocabularyReport,
    directory: str | os.PathLike[str],
    pictures: PictureSettings | None = PictureSettings(),  # noqa: B008, it cannot be changed
) -> list[Path]:
    """Write report.json, report.md and the plots into a directory, and create it if necessary.

    Without matplotlib, which the extra ``report`` installs, a warning says that the plots are left out.

    Args:
        report: The report.
        directory: Where to write.
        pictures: Formats and colors of the plots; None to draw none.

    Returns:
        The paths of the files.

    Raises:
        OSError: When a file cannot be written.
    """
    check_directory(directory)
    folder = Path(directory)
    plots: list[list[Path]] = []
    if pictures is not None and not is_available():
        warnings.warn(f"{folder}: without matplotlib, no plots are drawn: {INSTALL}", stacklevel=2)
    elif pictures is not None:
        with phase("drawing the plots"):
            plots = list(draw_plots(report, folder, pictures))
    write_json(folder / "report.json", report)
    shown = [next((file for file in files if file.suffix != ".pdf"), files[0]) for files in plots]
    write_bytes(folder / "report.md", markdown(report, [path.name for path in shown]).encode())
    return [folder / "report.json", folder / "report.md", *(file for files in plots for file in files)]


def write_training_report(
    directory: str | os.PathLike[str],
    tokenizer: Tokenizer,
    counts: npt.NDArray[Any],
    held_out: Iterable[tuple[str, Iterable[bytes]]] = (),
    pictures: PictureSettings | None = PictureSettings(),  # noqa: B008
) -> dict[str, Any]:
    """Write the report of a newly trained vocabulary; see `write_report`.

    Args:
        directory: Where to write. Call `check_directory` with it before training.
        tokenizer: The trained tokenizer.
        counts: How often each token occurs in the training text, by id. Counts of special tokens may be missing.
        held_out: Names and documents of texts that were not trained on. As in training, special tokens in them are
            boundaries.
        pictures: Formats and colors of the plots; None to draw none.

    Returns:
        The report.
    """
    report = training_report(tokenizer, counts, held_out)
    write_report(report, directory, pictures)
    return report


def training_report(
    tokenizer: Tokenizer, counts: npt.NDArray[Any], held_out: Iterable[tuple[str, Iterable[bytes]]] = ()
) -> dict[str, Any]:
    """Return the report of a newly trained vocabulary; see `write_training_report` for the arguments."""
    training = Usage("training", np.asarray(counts, np.int64)[: tokenizer.vocabulary.id_limit])
    texts = (usage_of(tokenizer, without_special_tokens(tokenizer, documents), name) for name, documents in held_out)
    return report_of(tokenizer, texts, training)
