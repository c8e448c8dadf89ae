"""Training of Unigram and WordPiece, by the libraries that encode with them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bpe import _core
from bpe.errors import InputError
from bpe.formats.library_json import read_json_vocabulary
from bpe.subwords import sentencepiece_encoder
from bpe.subwords.encoder import library
from bpe.subwords.vocabulary import LibraryVocabulary
from bpe.vocabulary import AddedToken, checked_names

UNIGRAM_SPECIAL = ("<unk>", "<s>", "</s>")
"""The first tokens of a Unigram vocabulary: what is unknown, and what begins and ends a text."""
WORDPIECE_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The first tokens of a WordPiece vocabulary, as in BERT."""

_LONGEST_LINE = 1 << 30  # bytes; sentencepiece skips longer lines, by default those of more than 4,192 bytes


@dataclass(frozen=True, kw_only=True)
class SubwordSettings:
    """The settings of training a vocabulary by another library.

    Args:
        vocab_size: Number of tokens in all.
        special_tokens: Special tokens besides `UNIGRAM_SPECIAL` or `WORDPIECE_SPECIAL`, which they follow. A special
            token in the text is a boundary and is not counted.
        min_frequency: Of WordPiece: do not merge pairs that occur less often.
        allow_smaller: Return a smaller vocabulary where the text gives no more tokens, instead of raising.
        threads: Of Unigram: number of threads.
        normalizer: Of Unigram: the normalizer, by sentencepiece's name.
        name: Name of the vocabulary.
    """

    vocab_size: int
    special_tokens: Sequence[str] = ()
    min_frequency: int = 1
    allow_smaller: bool = False
    threads: int = 1
    normalizer: str = "nmt_nfkc"
    name: str = "trained"


def train_subwords(
    algorithm: Literal["unigram", "wordpiece"], documents: Iterable[bytes], settings: SubwordSettings
) -> LibraryVocabulary:
    """Train a vocabulary of Unigram or WordPiece.

    Unigram is trained by ``sentencepiece`` with its defaults, but with a token for each byte, so that no text is
    unknown, and without a limit to the length of a line. WordPiece is trained by ``tokenizers``, with BERT's way to
    normalize and split a text, but with capital letters and accents kept.

    Args:
        algorithm: The algorithm.
        documents: The text, as UTF-8. Each line is taken by itself.
        settings: The settings.

    Raises:
        InputError: When the package is not installed, there is no text, the vocabulary size is too small, or larger
            than the text allows.
    """
    own = UNIGRAM_SPECIAL if algorithm == "unigram" else WORDPIECE_SPECIAL
    special = [name for name in checked_names(settings.special_tokens) if name not in own]
    lines = Lines(documents, [*own, *special])
    train = _train_unigram if algorithm == "unigram" else _train_wordpiece
    return train(lines, special, settings)


class Lines:
    """The lines of documents, without white space around them and cut at special tokens."""

    def __init__(self, documents: Iterable[bytes], special: Sequence[str]) -> None:
        self._documents = documents
        self._matcher = _core.SpecialTokens(dict.fromkeys(special, 0))
        self.is_empty: bool = True
        """Whether no line was found so far."""

    def __iter__(self) -> Iterator[str]:
        for document in self._documents:
            begin = 0
            for start, end, _ in [*self._matcher.all_in(document), (len(document), len(document), 0)]:
                for line in document[begin:start].decode("utf-8", "replace").split("\n"):
                    if line := line.replace("\0", " ").strip():
                        self.is_empty = False
                        yield line
                begin = end


def _train_unigram(lines: Lines, special: Sequence[str], settings: SubwordSettings) -> LibraryVocabulary:
    sentencepiece = library("sentencepiece", "training of unigram")
    least = len(UNIGRAM_SPECIAL) + len(special) + 256 + 1
    if settings.vocab_size < least:
        raise InputError(
            f"a vocabulary of {settings.vocab_size} is too small: {len(UNIGRAM_SPECIAL) + len(special)} special tokens,"
            f" 256 bytes and the characters of the text need at least {least}"
        )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="unigram",
            vocab_size=settings.vocab_size,
            control_symbols=list(special),
            normalization_rule_name=settings.normalizer,
            byte_fallback=True,
            hard_vocab_limit=not settings.allow_smaller,
            max_sentence_length=_LONGEST_LINE,
            num_threads=settings.threads,
            minloglevel=3,
        )
    except (RuntimeError, ValueError, OSError) as error:
        if lines.is_empty:
            raise _no_text() from None
        raise InputError(
            f"sentencepiece cannot train a vocabulary of {settings.vocab_size} ({' '.join(str(error).split())}); use"
            " another size or more text, or accept fewer tokens with allow_smaller / --allow-smaller"
        ) from None
    return sentencepiece_encoder.read(model.getvalue(), settings.name, None)


def _train_wordpiece(lines: Lines, special: Sequence[str], settings: SubwordSettings) -> LibraryVocabulary:
    tokenizers = library("tokenizers", "training of wordpiece")
    names = [*WORDPIECE_SPECIAL, *special]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=settings.vocab_size,
        min_frequency=settings.min_frequency,
        special_tokens=names,
        show_progress=False,
    )
    tokenizer.train_from_iterator(iter(lines), trainer)
    if lines.is_empty:
        raise _no_text()
    count = tokenizer.get_vocab_size()
    if count > settings.vocab_size:
        raise InputError(
            f"a vocabulary of {settings.vocab_size} is too small: {len(names)} special tokens and the characters of the"
            f" text need at least {count}"
        )
    if count < settings.vocab_size and not settings.allow_smaller:
        raise InputError(
            f"the text gives {count} tokens, not {settings.vocab_size} (use a smaller vocabulary or more text, or"
            " accept fewer tokens with allow_smaller / --allow-smaller)"
        )
    cls, sep = ("[CLS]", names.index("[CLS]")), ("[SEP]", names.index("[SEP]"))
    tokenizer.post_processor = tokenizers.processors.BertProcessing(sep, cls)
    data: dict[str, Any] = json.loads(tokenizer.to_str())
    added = [AddedToken(name, id) for id, name in enumerate(names)]
    return read_json_vocabulary(data, settings.name, added, None)


def _no_text() -> InputError:
    return InputError("no text to train on: the documents hold no characters but white space")
