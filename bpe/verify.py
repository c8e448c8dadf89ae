"""Compare a tokenizer with its reference, id for id.

The reference of a tokenizer.json is Hugging Face's ``tokenizers``, which reads the file itself. The reference of
vocab.json and merges.txt is the tokenizer class of transformers that the files name. The reference of a SentencePiece
model is the ``sentencepiece`` package. The reference of ranks is tiktoken's ``Encoding`` with the same ranks, pattern
and special tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from bpe.errors import InputError
from bpe.formats import TOKENIZER_FILES, huggingface, open_tokenizer, sentencepiece
from bpe.formats.companion_files import added_tokens_beside, special_names_beside
from bpe.formats.tokenizer_classes import class_of
from bpe.piece_vocabulary import PieceVocabulary
from bpe.progress import Progress, phase, shown
from bpe.text import counted, without_surrogates
from bpe.tokenizer import Tokenizer
from bpe.vocabulary import AddedToken

_LONG_WORD = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 2

# Text that tokenizers get wrong: contractions in both cases and with the long s, digits in threes, white space at the
# end of a text or before a newline, characters of several bytes and code points, capitals within words, pretokens as
# long as the keys of a table or one byte longer, NULs, and pretokens that differ only in their NULs.
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
    "I'Mx don'ts 'tis'll''s ’s x'\n's",
    "1 12 123 1234 12345 ١٢٣٤ Ⅷ½",
    "".join(f"{'1234567890123456'[:length]} x{'9' * length}\n" for length in range(1, 17)),
    "x\u00a0y\u3000z\u2028\u0085.",
    "\t\tx\v\fy\x1c\x1d\x1e\x1f \u1680\u180e\u200b\ufeff\u2029 \u205fz",
    "naïve na\u0131ve e\u0301\u0323 \u200d\ufe0f",
    "HTTPServer iPhone McDONALD ǅungla Ǆ ʰa ªº A\u0301b ßẞ ﬁ",
    "👩‍👩‍👧‍👦🇫🇷🏽",
    "日本語のテキスト。한국어 हिन्दी ไทย العربية",
    "X\0 X\0\0 \0",
    "X X\0 \0X \0\0 X\0X" + "\0" * 40,
    "".join(f"{_LONG_WORD[:length]}\0 {_LONG_WORD[:length]}\n" for length in (7, 8, 15, 16, 31, 32)),
    " ".join(_LONG_WORD[:length] for length in range(1, 68)),
    " ".join("зн日本ก"[length % 5] * length for length in range(1, 24)),
    "".join(f"{' ' * length}x{chr(10) * length}{'-' * length}" for length in range(1, 34)),
    "\U0001d518\U0010ffff\ufffd\ue000",
    "!?!?\n\n...\r\n",
    "//\n/ \n\r/*\n/\n",
    "<|begin_of_text|><|endoftext|>",
    "\ud83d\ude00 \ud83d lone",
    "a" * 3000,
    " " * 3000 + "x",
    "\n" * 3000,
    "ab" * 1500 + "中" * 1000,
    "\0" * 3000 + "9" * 3000 + "!" * 3000,
)

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Reference:
    """A reference implementation, which decides which ids are correct."""

    name: str
    """Name and version, such as "tiktoken 0.14.0"."""
    encode_special: Encode
    """Encodes a text and recognises `special_tokens`, but no other special tokens."""
    special_tokens: frozenset[str]
    encode_ordinary: Encode | None
    """Encodes a text and treats special tokens as text; None if the reference always recognises them."""


@dataclass(frozen=True)
class Difference:
    """The first difference between the ids of a document. An id is None on the side that has no more ids."""

    document: str
    byte: int
    """Where in the document the ids differ, in bytes."""
    before: bytes
    """The end of the text before the place."""
    ours: int | None
    """The id of the tokenizer."""
    theirs: int | None
    """The id of the reference."""

    def __str__(self) -> str:
        text = self.before.decode("utf-8", "replace")[-12:]
        ours, theirs = ("no token" if id is None else id for id in (self.ours, self.theirs))
        return f"{self.document}, byte {self.byte}, after {text!r}: {ours} here, {theirs} in the reference"


@dataclass
class Verification:
    """The result of comparing a tokenizer with its reference."""

    reference: str
    """Name and version of the reference."""
    documents: int = 0
    bytes: int = 0
    """Size of the documents."""
    tokens: int = 0
    not_utf8: int = 0
    """Documents that are not UTF-8, for which only the round trip was checked."""
    reference_failed: int = 0
    """Documents on which the reference itself failed."""
    differing: int = 0
    """Documents with a difference."""
    first_difference: Difference | str | None = None


def tiktoken_reference(tokenizer: Tokenizer) -> Reference:
    """Return tiktoken with the tokenizer's ranks, pattern and special tokens.

    Of two special tokens that begin at the same place, tiktoken takes the one that comes first in its hash table. No
    rule decides which, so special tokens that begin another special token are left out.

    Raises:
        InputError: When tiktoken cannot express the vocabulary, which normalizes text or splits it in several steps.
        ModuleNotFoundError: When tiktoken is not installed; the extra ``verify`` installs it.
    """
    if tokenizer.vocabulary.changes_text or tokenizer.pattern.steps is not None:
        raise InputError(
            f"{tokenizer.name} normalizes text or splits it in several steps, which tiktoken does not do; save the"
            " tokenizer as a tokenizer.json, and verify that file without a pattern"
        )
    import tiktoken

    added = tokenizer.vocabulary.added_ids  # tiktoken calls all of them special
    in_order = sorted(added)
    neighbours = zip(in_order, in_order[1:], strict=False)
    begins_another = {token for token, following in neighbours if following.startswith(token)}
    special_tokens = {token: id for token, id in added.items() if token not in begins_another}
    always = special_tokens.keys() - tokenizer.special_tokens_set
    encoding = tiktoken.Encoding(
        tokenizer.name,
        pat_str=tokenizer.pattern.text,
        mergeable_ranks=tokenizer.mergeable_ranks,
        special_tokens=special_tokens,
    )

    def encode_always(text: str) -> list[int]:
        return encoding.encode(text, allowed_special=always, disallowed_special=())

    return Reference(
        f"tiktoken {tiktoken.__version__}",
        lambda text: encoding.encode(text, allowed_special="all"),
        frozenset(special_tokens),
        encode_always if always else encoding.encode_ordinary,
    )


def reference_of_vocabulary(tokenizer: Tokenizer) -> Reference:
    """Return the reference of a tokenizer without a file that a reference reads: a GGUF's, or one with a pattern given.

    This is tiktoken, or else ``tokenizers`` with the vocabulary written as a tokenizer.json, or else ``sentencepiece``
    with the vocabulary written as a .model.

    Raises:
        InputError: When none can express the vocabulary.
        ModuleNotFoundError: When the package is not installed; the extras ``verify`` and ``subwords`` install all.
    """
    vocabulary = tokenizer.vocabulary
    by_merges = vocabulary.changes_text or vocabulary.merges_only or vocabulary.merge_list is not None
    if not by_merges and tokenizer.pattern.steps is None:
        return tiktoken_reference(tokenizer)
    try:
        content = huggingface.render(vocabulary)
    except InputError:
        if not isinstance(vocabulary, PieceVocabulary):
            raise
        reference = sentencepiece_reference(Path(vocabulary.name), sentencepiece.render(vocabulary))
        return replace(reference, name=f"{reference.name} (the vocabulary as a .model)")
    reference = huggingface_reference(Path(vocabulary.name), content)
    return replace(reference, name=f"{reference.name} (the vocabulary as a tokenizer.json)")


def huggingface_reference(
    path: Path, content: bytes, added_tokens: Iterable[AddedToken] = (), special_names: Iterable[str] = ()
) -> Reference:
    """Return ``tokenizers`` with the content of a tokenizer.json. It recognises added tokens in any text.

    Args:
        path: The path of the file, for messages.
        content: The content of the file.
        added_tokens: Tokens to add, as transformers does with those of tokenizer_config.json.
        special_names: The texts of tokens of the file that are special as well, as for transformers.

    Raises:
        InputError: When ``tokenizers`` rejects the file.
        ModuleNotFoundError: When ``tokenizers`` is not installed; the extra ``verify`` installs it.
    """
    import tokenizers

    try:
        theirs = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:
        raise InputError(f"{path}: tokenizers {tokenizers.__version__} cannot read this file ({error})") from error
    flags = [{key: value for key, value in token._asdict().items() if key != "id"} for token in added_tokens]
    theirs.add_tokens([tokenizers.AddedToken(**each) for each in flags])
    known = {token.content for token in theirs.get_added_tokens_decoder().values()}
    names = [name for name in special_names if name not in known and theirs.token_to_id(name) is not None]
    theirs.add_special_tokens(names)
    theirs.no_truncation()  # a file may have settings for batches of a model, which truncate or pad the ids
    theirs.no_padding()

    def encode(text: str) -> list[int]:
        ids: list[int] = theirs.encode(without_surrogates(text), add_special_tokens=False).ids
        return ids

    added = frozenset(token.content for token in theirs.get_added_tokens_decoder().values())
    return Reference(f"tokenizers {tokenizers.__version__}", encode, added, None)


def sentencepiece_reference(path: Path, content: bytes) -> Reference:
    """Return the ``sentencepiece`` package with the content of a model. It recognises no control pieces in a text.

    Raises:
        InputError: When ``sentencepiece`` rejects the file.
        ModuleNotFoundError: When ``sentencepiece`` is not installed; the extra ``subwords`` installs it.
    """
    import sentencepiece as library

    try:
        theirs = library.SentencePieceProcessor(model_proto=content)
    except Exception as error:
        raise InputError(f"{path}: sentencepiece {library.__version__} cannot read this file ({error})") from error

    def encode(text: str) -> list[int]:
        ids: list[int] = theirs.encode(without_surrogates(text))
        return ids

    return Reference(f"sentencepiece {library.__version__}", encode, frozenset(), encode)


def _transformers_reference(tokenizer: Tokenizer, directory: Path) -> Reference:
    """Return the tokenizer that transformers makes of a directory with vocab.json and merges.txt."""
    name = class_of(directory)
    if not name:
        return reference_of_vocabulary(tokenizer)  # nothing but the pattern of the caller says how text is split
    import transformers

    try:
        theirs = getattr(transformers, name).from_pretrained(directory)
        content = theirs.backend_tokenizer.to_str().encode()
    except Exception as error:
        raise InputError(f"{directory}: transformers {transformers.__version__} cannot read it ({error})") from error
    reference = huggingface_reference(directory, content)
    return replace(reference, name=f"transformers {transformers.__version__}")


def reference_of(tokenizer: Tokenizer, path: Path) -> Reference:
    """Return the reference of a tokenizer that was read from a file, or from the tokenizer file in a directory.

    Raises:
        InputError: When the reference itself encodes; or as `huggingface_reference`.
    """
    library = tokenizer.vocabulary.library
    if library is not None:
        raise InputError(
            f"{path}: the package {library.package} encodes this vocabulary of {library.algorithm}; it is the reference"
            " itself, so there is nothing to compare"
        )
    given = path
    path, format, content = open_tokenizer(given)
    if format == "vocab_merges":
        return _transformers_reference(tokenizer, path.parent)
    if format == "sentencepiece":
        return sentencepiece_reference(path, bytes(content))
    if format != "huggingface":
        return reference_of_vocabulary(tokenizer)
    has_companions = given.is_dir() or path.name in TOKENIZER_FILES
    if not has_companions:
        return huggingface_reference(path, bytes(content))
    beside = path.parent
    return huggingface_reference(path, bytes(content), added_tokens_beside(beside), special_names_beside(beside))


def verify(
    tokenizer: Tokenizer,
    texts: Iterable[bytes],
    progress: Callable[[Verification], None] | Progress = None,
    reference: Reference | None = None,
) -> Verification:
    """Compare ids and decoded bytes on built-in hard cases, on the vocabulary's own tokens, and on `texts`.

    Decoding need not return bytes that have no token, nor a text that is normalized or of which the pattern leaves out
    a part. A document that is not UTF-8 cannot be given to the reference, so
    only its round trip is checked. The same holds if the reference itself fails, as tiktoken does on very long runs.

    Args:
        tokenizer: The tokenizer to check.
        texts: More documents to compare.
        progress: True shows the progress on a terminal or in a notebook, and a stream there. A callback is called after
            each of these documents.
        reference: The reference. Default: tiktoken.

    Returns:
        The counts, and the first difference.

    Raises:
        ModuleNotFoundError: When tiktoken is not installed; the extra ``verify`` installs it.
    """
    reference = reference or tiktoken_reference(tokenizer)
    comparison = _Comparison(tokenizer, reference)
    result = comparison.result
    with shown(progress), phase("comparing", None, "bytes") as comparing:
        for number, text in enumerate(HARD_CASES, 1):
            comparison.compare(f"hard case {number}", text)
        for text in special_cases(sorted(reference.special_tokens & tokenizer.vocabulary.added_ids.keys())):
            comparison.compare(f"special tokens {text!r}", text, special=True)
        for name, text in vocabulary_cases(tokenizer):
            comparison.compare(name, text)
        for number, content in enumerate(texts, 1):
            comparing.update(result.bytes, counted(result.documents, "document"))
            try:
                text = content.decode()
            except UnicodeDecodeError:
                comparison.check_round_trip(f"document {number}", content)
            else:
                comparison.compare(f"document {number}", text)
            if callable(progress):
                progress(result)
    return result


def special_cases(tokens: Sequence[str]) -> Iterator[str]:
    """Yield texts in which special tokens are adjacent, nested, overlapping, and truncated at either end."""
    chosen = {*tokens[:3], *tokens[-2:], *(token for token in tokens[:100] for other in tokens if token in other[1:])}
    some = sorted(chosen)[:20]
    for token in some:
        yield from (token, f" {token}\n{token}  ", f"it's{token}'s", f"12{token}345{token}{token}6")
        yield from (token[:-1], token[1:], token[:-1] + token, token + token[1:], token.upper() + token.lower())
        for other in some:
            middle = len(token) // 2
            yield from (token + other, f"{token} {other}", token[:middle] + other + token[middle:])
            yield from (token + other[size:] for size in range(1, len(other)) if token.endswith(other[:size]))


def vocabulary_cases(tokenizer: Tokenizer, size: int = 1000) -> Iterator[tuple[str, str]]:
    """Yield named cases of `size` tokens that are text: one case with a token per line, one with all tokens joined."""
    texts = []
    for token in tokenizer.vocabulary.ranks:
        try:
            texts.append(token.decode())
        except UnicodeDecodeError:
            continue
    for start in range(0, len(texts), size):
        for name, separator in (("by line", "\n"), ("run together", "")):
            yield f"tokens {start} to {start + size} {name}", separator.join(texts[start : start + size])


class _Comparison:
    """A comparison of a tokenizer with its reference, and the result so far."""

    def __init__(self, tokenizer: Tokenizer, reference: Reference) -> None:
        self._tokenizer = tokenizer
        self._reference = reference
        self._taking = {token.id for token in tokenizer.vocabulary.added_tokens if token.lstrip or token.rstrip}
        self.result = Verification(reference.name)

    def compare(self, name: str, text: str, *, special: bool = False) -> None:
        """Count a text, and compare its ids with those of the reference."""
        reference_encode = None if special else self._reference.encode_ordinary
        if reference_encode is not None:
            ours = self._tokenizer.encode_ordinary(text)
        else:
            reference_encode = self._reference.encode_special
            allowed = self._reference.special_tokens & self._tokenizer.special_tokens_set
            ours = self._tokenizer.encode(text, allowed_special=allowed, disallowed_special=())
        round_trip = self._count(ours, without_surrogates(text).encode())
        try:
            theirs = reference_encode(text)
        except BaseException as error:  # a Rust panic, such as on stack overflow, is not an Exception
            if type(error).__name__ != "PanicException":
                raise
            self.result.reference_failed += 1
            theirs = ours
        if ours != theirs:
            pairs = enumerate(zip_longest(ours, theirs))
            at, (our_id, their_id) = next((at, pair) for at, pair in pairs if pair[0] != pair[1])
            before = self._tokenizer.decode_bytes(ours[:at])
            self._differ(Difference(name, len(before), before[-48:], our_id, their_id))
        elif not round_trip:
            self._differ(f"{name}: decoding does not give the text back")

    def check_round_trip(self, name: str, content: bytes) -> None:
        """Count bytes that are not UTF-8, and check that decoding returns them."""
        self.result.not_utf8 += 1
        if not self._count(self._tokenizer.encode_ordinary(content), content):
            self._differ(f"{name}: decoding does not give the bytes back")

    def _count(self, ids: list[int], content: bytes) -> bool:
        """Count a document, and return whether its ids decode to it."""
        self.result.documents += 1
        self.result.bytes += len(content)
        self.result.tokens += len(ids)
        vocabulary = self._tokenizer.vocabulary
        if vocabulary.changes_text or not vocabulary.splitter.keeps_text or not self._taking.isdisjoint(ids):
            return True  # what is normalized or left out, or the white space that a token takes, is not decoded
        return self._tokenizer.decode_bytes(ids) == content.translate(None, self._tokenizer.unknown_bytes)

    def _differ(self, difference: Difference | str) -> None:
        self.result.differing += 1
        if self.result.first_difference is None:
            self.result.first_difference = difference


def require_identical(result: Verification) -> None:
    """Check the result of `verify`.

    Raises:
        InputError: When any document differs.
    """
    if result.differing:
        raise InputError(
            f"{result.differing} documents differ from the reference, {result.reference};"
            f" first: {result.first_difference}"
        )
