"""Training of BPE in SentencePiece's form: merges of characters, over words that begin with a visible space.

A text is taken line by line. As ``sentencepiece`` does by default: a line is normalized, spaces at its ends are dropped
and several become one, "▁" is put in front and takes the place of each space, words are split before each "▁" and
between scripts (Hiragana and Katakana count as Han; digits and punctuation are of one script), the rarest characters
beyond 99.95% of the text are left to the 256 byte tokens, and no piece is longer than 16 characters.

The normalizer is "identity", unless another one of sentencepiece's is named. The maps of these are sentencepiece's own,
so that package is needed for them.

Merges go by count, as there. Of pairs with equal counts, the one whose characters are the most frequent comes first
here; sentencepiece takes the pair with the shorter, then the smaller text. And where two pairs join to the same text,
both merge here, as they do when a text is encoded; sentencepiece's trainer merges only the first.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from bpe import _core
from bpe.errors import InputError
from bpe.formats.protobuf import encode_bytes, encode_float, encode_varint, fields
from bpe.patterns import PATTERNS
from bpe.subwords.encoder import library
from bpe.training.initial import token_arrays
from bpe.training.work import rows_of

SPACE = "▁"
COVERAGE = 0.9995
"""The share of the characters of the text that have tokens of their own; as in sentencepiece."""
MAX_PIECE_LENGTH = 16
"""The most characters of a piece; as in sentencepiece."""
PIECES = ("<unk>", "<s>", "</s>")
NORMALIZERS = ("identity", "nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf")
"""The normalizers, by sentencepiece's names."""

_CODE = 4  # bytes for each character in the core, whose units are bytes
_SCRIPTS = """
    Latin Greek Cyrillic Armenian Hebrew Arabic Syriac Thaana Devanagari Bengali Gurmukhi Gujarati Oriya Tamil Telugu
    Kannada Malayalam Sinhala Thai Lao Tibetan Myanmar Georgian Hangul Ethiopic Cherokee Ogham Runic Khmer Mongolian
    Hiragana Katakana Bopomofo Han Yi Gothic Tagalog Tifinagh Balinese Javanese Sundanese Coptic Glagolitic Nko Vai
    Lisu Bamum Cham Lepcha Limbu Canadian_Aboriginal Braille Deseret Adlam Inherited
"""


@dataclass(frozen=True, kw_only=True)
class PieceSettings:
    """The settings of `train_pieces`.

    Args:
        vocab_size: Number of tokens in all: `PIECES`, the special tokens, 256 bytes, the merges and the characters.
        special_tokens: Control symbols besides `PIECES`. One in the text is a boundary and is not counted.
        min_frequency: Do not merge pairs that occur less often.
        allow_smaller: Return a smaller vocabulary where the text has no pair left to merge, instead of raising.
        threads: Number of threads. The result does not depend on it.
        normalizer: One of `NORMALIZERS`: how a text is normalized before it is encoded, and before it is counted here.
            All but "identity" need the package ``sentencepiece``.
    """

    vocab_size: int
    special_tokens: Sequence[str] = ()
    min_frequency: int = 1
    allow_smaller: bool = False
    threads: int = 1
    normalizer: str = "identity"


class PieceModel(NamedTuple):
    """A trained model in SentencePiece's format."""

    content: bytes
    """The content of the .model file."""
    size: int
    """The number of tokens."""


def train_pieces(lines: Iterable[str], settings: PieceSettings) -> PieceModel:
    """Train BPE in SentencePiece's form.

    Args:
        lines: The text.
        settings: The settings.

    Returns:
        The model.

    Raises:
        InputError: When there is no text, the vocabulary size is too small or larger than the text allows, or the
            normalizer is unknown or needs a package that is not installed.
    """
    rules = rules_of(settings.normalizer)
    words = count_words(map(rules.normalized, lines))
    if not words:
        raise InputError("no text to train on: the documents hold no characters but white space")
    characters = covered_characters(words)
    fixed = len(PIECES) + len(settings.special_tokens) + 256 + len(characters)
    wanted = settings.vocab_size - fixed
    if wanted < 0:
        raise InputError(
            f"a vocabulary of {settings.vocab_size} is too small: the special tokens, 256 bytes and"
            f" {len(characters)} characters need at least {fixed}"
        )
    merged = learn_merges(words, characters, wanted, settings.min_frequency, settings.threads)
    if len(merged) < wanted and not settings.allow_smaller:
        raise InputError(
            f"the text gives {fixed + len(merged)} tokens, not {settings.vocab_size}: no pair is left to merge"
            " (use a smaller vocabulary or more text, or accept fewer tokens with allow_smaller / --allow-smaller)"
        )
    content = model_content(settings.special_tokens, [*merged, *characters], rules)
    return PieceModel(content, fixed + len(merged))


class Rules:
    """The rules of a normalizer.

    Args:
        name: The name of the normalizer.
        library_normalizer: The ``SentencePieceNormalizer`` of that name; None for identity.
    """

    def __init__(self, name: str, library_normalizer: Any = None) -> None:
        self.name = name
        self._normalizer = library_normalizer
        self.map = b"" if library_normalizer is None else _map_in(library_normalizer.serialized_model_proto())
        """The precompiled map of a .model file."""

    def normalized(self, line: str) -> str:
        """Return a line with what the map replaces, and perhaps other spaces."""
        return line if self._normalizer is None else str(self._normalizer.normalize(line))


def rules_of(name: str) -> Rules:
    """Return the rules of a normalizer.

    Raises:
        InputError: When there is no such normalizer, or the package ``sentencepiece``, which has it, is missing.
    """
    if name not in NORMALIZERS:
        raise InputError(f"there is no normalizer {name!r}; give one of {', '.join(NORMALIZERS)}")
    if name == "identity":
        return Rules(name)
    sentencepiece = library("sentencepiece", f"the normalizer {name}")
    return Rules(name, sentencepiece.SentencePieceNormalizer(rule_name=name))


def _map_in(model: bytes) -> bytes:
    """Return the precompiled map in a model file."""
    specs = [field.value for field in fields(model) if field.number == _NORMALIZER_SPEC]
    return b"".join(
        field.value
        for spec in specs
        if isinstance(spec, bytes)
        for field in fields(spec)
        if field.number == _CHARSMAP and isinstance(field.value, bytes)
    )


def count_words(lines: Iterable[str]) -> Counter[str]:
    """Return how often each word occurs, with the space in front of it."""
    words: Counter[str] = Counter()
    for line in lines:
        words.update(line.replace(SPACE, " ").split(" "))
    del words[""]
    return Counter({SPACE + word: count for word, count in words.items()})


def covered_characters(words: Mapping[str, int]) -> list[str]:
    """Return the characters that get tokens, the most frequent first."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    total, done = counts.total(), 0
    covered = []
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if done >= COVERAGE * total:
            break
        covered.append(character)
        done += count
    return covered


def parts_of(word: str, covered: Mapping[str, object]) -> Iterator[str]:
    """Yield the parts of a word that merges stay within: of one script, without characters that have no token."""
    part = ""
    before: str | None = None
    for character in word:
        script = None if character == SPACE else script_of(character)
        script = before if script == "Inherited" else script
        is_covered = character in covered
        if not is_covered or (None not in (script, before) and script != before):
            if part:
                yield part
            part = ""
        part += character if is_covered else ""
        before = script if is_covered else None
    if part:
        yield part


@lru_cache(maxsize=1 << 17)
def script_of(character: str) -> str:
    """Return the script of a character as sentencepiece's trainer tells scripts apart, "Common" for signs and digits.

    >>> script_of("é"), script_of("の"), script_of("漢"), script_of("5")
    ('Latin', 'Han', 'Han', 'Common')
    """
    import regex

    if character == "\u30fc":
        return "Han"
    found = regex.match("|".join(f"(?P<{name}>\\p{{Script={name}}})" for name in _SCRIPTS.split()), character)
    name = found.lastgroup if found else None
    return "Han" if name in ("Hiragana", "Katakana") else name or "Common"


def learn_merges(
    words: Mapping[str, int], characters: Sequence[str], merges: int, min_frequency: int, threads: int
) -> list[str]:
    """Return the pieces that merging makes, in the order of the merges.

    The core merges bytes. Each character is four bytes there, of four disjoint ranges, and tokens for its first two and
    three bytes merge before any pair of characters can, so that a word begins as one token for each character.
    """
    codes = {character: _code(number) for number, character in enumerate(characters)}
    tokens = [bytes([byte]) for byte in range(256)]
    for size in (2, 3):
        tokens += dict.fromkeys(code[:size] for code in codes.values())
    first = len(tokens)
    tokens += codes.values()
    counter = _core.Counter(PATTERNS["gpt2"].splitter(), _core.SpecialTokens({}))
    by_count: defaultdict[int, list[bytes]] = defaultdict(list)
    for word, count in words.items():
        for part in parts_of(word, codes):
            by_count[count].append(b"".join(map(codes.__getitem__, part)))
    for count, coded in by_count.items():
        counter.add_pretokens(coded, count)
    learned, *_ = _core.train_merges(
        counter,
        *token_arrays({token: id for id, token in enumerate(tokens)}),
        merges,
        min_frequency,
        _CODE * MAX_PIECE_LENGTH,
        threads,
        lambda _: False,
        lambda _: None,
    )
    pieces = dict(enumerate(characters, first))
    for left, right, _ in rows_of(learned):
        pieces[first + len(pieces)] = pieces[left] + pieces[right]
    return list(pieces.values())[len(characters) :]


def _code(number: int) -> bytes:
    parts = (number >> 18, number >> 12 & 63, number >> 6 & 63, number & 63)
    return bytes(64 * place + part for place, part in enumerate(parts))


# The file: a protobuf with the fields of sentencepiece_model.proto.
_NORMALIZER_SPEC, _CHARSMAP = 3, 2
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6


def model_content(special_tokens: Sequence[str], pieces: Sequence[str], rules: Rules) -> bytes:
    """Return a .model file of BPE with byte fallback.

    Args:
        special_tokens: The control symbols besides `PIECES`.
        pieces: The other pieces: first those that merge, in the order of the merges.
        rules: The normalizer.
    """
    all_pieces = [(PIECES[0], 0.0, _UNKNOWN), *((name, 0.0, _CONTROL) for name in (*PIECES[1:], *special_tokens))]
    all_pieces += [(f"<0x{byte:02X}>", 0.0, _BYTE) for byte in range(256)]
    all_pieces += [(piece, -float(rank), _NORMAL) for rank, piece in enumerate(pieces)]
    content = b"".join(
        encode_bytes(1, encode_bytes(1, text.encode()) + encode_float(2, score) + encode_varint(3, kind))
        for text, score, kind in all_pieces
    )
    trainer = encode_varint(3, 2) + encode_varint(4, len(all_pieces))  # BPE
    trainer += encode_float(10, COVERAGE) + encode_varint(20, MAX_PIECE_LENGTH)
    trainer += b"".join(encode_bytes(30, name.encode()) for name in special_tokens)
    trainer += encode_varint(35, 1) + b"".join(encode_varint(40 + place, id) for place, id in enumerate((0, 1, 2, -1)))
    normalizer = encode_bytes(1, rules.name.encode()) + encode_bytes(_CHARSMAP, rules.map)
    # Identity leaves repeated spaces as they are, as in Llama's models, which is what transformers takes for granted.
    flags = {"add_dummy_prefix": 1, "remove_extra_whitespaces": int(rules.name != "identity"), "escape_whitespaces": 1}
    normalizer += b"".join(encode_varint(number, flag) for number, flag in enumerate(flags.values(), 3))
    return content + encode_bytes(2, trainer) + encode_bytes(_NORMALIZER_SPEC, normalizer)
