"""What a tokenizer is: its tokens and their ids, its split pattern, and its added tokens.

A file format in `bpe.formats` reads a file into a `Vocabulary` and writes a file from one. `bpe.tokenizer.Tokenizer`
encodes and decodes with it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from bpe import _core
from bpe.boundaries import Boundaries, extended, known_boundaries
from bpe.character_merges import CharacterMerges
from bpe.errors import InputError
from bpe.normalizers import compile_normalizer
from bpe.patterns import Pattern, find_pattern
from bpe.splitting.steps import ByteCharacters, Split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bpe.subwords.encoder import LibraryEncoder


class AddedToken(NamedTuple):
    """A string that is searched for in a text before the text is split, and that becomes one id.

    The fields are those of a tokenizer.json and mean what they mean to ``tokenizers``. All of tiktoken's added tokens
    are special and have none of the other fields set.
    """

    content: str
    id: int
    special: bool = True
    """Whether the token is a control token. It is recognised only with permission; see `Tokenizer.encode`. Any other
    added token is part of the text, such as ``<think>``, and is always recognised."""
    lstrip: bool = False
    """Whether the white space before the token belongs to it."""
    rstrip: bool = False
    """Whether the white space after the token belongs to it."""
    single_word: bool = False
    """Whether the token is recognised only where no word character is beside it."""
    normalized: bool = False
    """Whether the token is searched for in the normalized text, which is split at the other tokens before that."""

    @property
    def kind(self) -> str:
        """What messages call the token: "special" or "added"."""
        return "special" if self.special else "added"


class Vocabulary:
    """Tokens with their ids, a split pattern and added tokens: the data of a tokenizer, without a way to encode.

    >>> ranks = {bytes([byte]): byte for byte in range(256)} | {b"he": 256, b"hell": 258, b"ll": 257}
    >>> vocabulary = Vocabulary.from_ranks("tiny", find_pattern("gpt2"), ranks, {"<|end|>": 259})
    >>> vocabulary.n_vocab, vocabulary.merge_count
    (260, 3)
    >>> vocabulary.merges()  # left, right, merged
    [(104, 101, 256), (108, 108, 257), (256, 257, 258)]
    >>> list(vocabulary.ranks)[256:]
    [b'he', b'll', b'hell']
    """

    library: LibraryEncoder | None = None
    """The library that encodes instead of the core; see `bpe.subwords`."""
    characters: CharacterMerges | None = None
    """What merges characters that stand for bytes, where merging bytes would give other ids."""
    replaces_byte_runs: bool = False
    """Whether `decoded` decodes ids whose bytes are not UTF-8, instead of the core."""

    def __init__(
        self,
        name: str,
        pattern: Pattern,
        tokens: bytes,
        offsets: memoryview,
        ids: memoryview,
        added_tokens: Iterable[AddedToken] = (),
        *,
        merges_only: bool = False,
        merge_list: memoryview | None = None,
        foreign_tokens: Mapping[str, int] | None = None,
        normalizer: Mapping[str, Any] | None = None,
        boundaries: Boundaries | None = None,
        characters: CharacterMerges | None = None,
    ) -> None:
        """
        Args:
            name: What to call the vocabulary.
            pattern: How text is split into pretokens.
            tokens: The bytes of all tokens, joined. Without the added tokens, and in any order.
            offsets: The place of each token: token i is ``tokens[offsets[i]:offsets[i + 1]]``. [tokens + 1], uint64
            ids: The id of each token, which is also its merge rank. [tokens], uint32
            added_tokens: The tokens that are searched for before a text is split. Several may have the same id, also
                that of an ordinary token. The id decodes to the ordinary token, or else to the first of them.
            merges_only: Whether every id comes from merging, as in ``tokenizers`` by default. Otherwise a pretoken that
                is a token is taken whole, as in tiktoken, and each of the 256 bytes must be a token.
            merge_list: The left, right and merged id of the pairs that merge, in their order; no other pairs merge.
                Default: any pair whose joined bytes are a token merges, in the order of the ids of those tokens.
                [3 * merges], uint32
            foreign_tokens: The id of each token that stands for no bytes, by its text. No text becomes such a token,
                and it decodes to its text.
            normalizer: How text is normalized before it is split, in the form of a tokenizer.json; see
                `bpe.normalizers`. Default: not at all.
            boundaries: What begins and ends a text. Default: the added tokens of known names; see
                `bpe.boundaries.known_boundaries`.
            characters: What merges characters that stand for bytes, where merging bytes would give other ids;
                `merges_only` and `merge_list` then have no meaning. Its tokens are those of this vocabulary.

        Raises:
            ValueError: When a byte has no token, a token or the id of an ordinary token occurs twice, an added token is
                empty or not valid Unicode, an id is out of range, a listed pair does not join to its token, or the
                pattern does not compile.
        """
        self.name = name
        self.pattern = pattern
        self.tokens = tokens
        self.offsets = offsets
        self.ids = ids
        self.merge_list = merge_list
        self.foreign_tokens: dict[str, int] = dict(foreign_tokens or {})
        self.added_tokens: tuple[AddedToken, ...] = tuple(added_tokens)
        self.normalizer = normalizer
        self.characters = characters

        check_added_tokens(self.added_tokens)
        _check_foreign_tokens(self.foreign_tokens, ids)
        self.added_ids: dict[str, int] = {token.content: token.id for token in self.added_tokens}
        """The id of each added token, by its text. Do not change it."""
        self.special_tokens: dict[str, int] = {token.content: token.id for token in self.added_tokens if token.special}
        """The id of each added token that is special, by its text. Do not change it."""
        self.boundaries: Boundaries = known_boundaries(self.added_ids) if boundaries is None else boundaries
        """What begins and ends a text, and where each of it comes from."""
        self.core_normalizer: _core.Normalizer | None = compile_normalizer(normalizer)
        """Normalizes text in the core; None if text stays as it is."""
        self._refuse_equal_searches()
        self.splitter: _core.Splitter = pattern.splitter() if characters is None else characters.splitter(pattern)
        """Splits text into pretokens by the pattern. With `characters`, they have a character for each byte."""
        self.encoder: _core.Encoder = _core.Encoder(
            tokens,
            offsets,
            ids,
            self.splitter,
            self.added_ids | self.foreign_tokens,
            merges_only=merges_only,
            merges=merge_list,
            normalizer=self.core_normalizer,
            pieces=None if characters is None else characters.pieces(),
        )
        """The core's encoder of these tokens. Made here because it checks them."""
        self.special_matcher: _core.SpecialTokens = _core.SpecialTokens(self.special_tokens)
        """Finds the texts of the special tokens in a text, whatever is beside them."""
        self.always_added: _core.AddedTokens | None = (
            self.added_matcher(frozenset()) if len(self.special_tokens) < len(self.added_ids) else None
        )
        """Splits a text at the added tokens that need no permission; None if all are special."""
        drops = merges_only if characters is None else characters.unknown_token is None
        all_bytes = bytes(range(256)) if drops else b""
        self.unknown_bytes: bytes = bytes(byte for byte in all_bytes if self.encoder.find(bytes([byte])) is None)
        """The bytes without a token, which are dropped from a text before it is encoded; b"" unless `merges_only`."""
        changes_bytes = characters is not None or len(self.unknown_bytes) > 0
        self.merges_only: bool = (merges_only or characters is not None) and (
            changes_bytes or self.unreachable_count > 0
        )
        """Whether ids may differ from tiktoken's, because a token is unreachable or a byte has no token."""
        others = [*self.added_ids.values(), *self.foreign_tokens.values()]
        self.max_token_value: int = max([self.id_limit - 1, *others])
        """The highest id."""

    @classmethod
    def from_ranks(
        cls,
        name: str,
        pattern: Pattern,
        ranks: Mapping[bytes, int],
        special_tokens: Mapping[str, int],
        merges_only: bool = False,
    ) -> Vocabulary:
        """Create a vocabulary from tiktoken's parts: the rank of each token, and the id of each special token.

        Raises:
            ValueError: When a rank is not an integer from 0 to 2**32 - 1, or as the constructor does.
        """
        offsets = array("Q", [0])
        position = 0
        for token in ranks:
            position += len(token)
            offsets.append(position)
        try:
            ids = array("I", ranks.values())
        except (OverflowError, TypeError) as error:
            raise ValueError(f"ranks must be integers from 0 to 2**32 - 1 ({error})") from error
        arrays = (b"".join(ranks), memoryview(offsets), memoryview(ids))
        return cls(name, pattern, *arrays, as_added_tokens(special_tokens), merges_only=merges_only)

    def with_boundaries(self, boundaries: Boundaries) -> Vocabulary:
        """Return a copy that begins and ends texts differently and shares everything else, such as the encoder."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, boundaries=boundaries)
        return copy

    def __repr__(self) -> str:
        return f"<Vocabulary {self.name!r}, {self.token_count} tokens>"

    def with_special_tokens(self, names: Sequence[str]) -> Vocabulary:
        """Return a vocabulary with more special tokens. All ids stay; new names take the ids after the last.

        As in ``tokenizers``, a name that is the text of a token keeps the token's id.

        Args:
            names: The texts of the special tokens.

        Raises:
            InputError: When `names` is a str, or a name is empty or given twice.
        """
        ids: dict[str, int] = {}
        for name in checked_names(names):
            # In a tokenizer.json, other characters stand for the bytes of a token.
            plain = all("!" <= character <= "~" for character in name)
            id = self.encoder.find(name.encode()) if plain else None
            if id is not None:
                ids[name] = id
        added = chosen_tokens(self.added_tokens, names, ids, self.n_vocab).values() if names else self.added_tokens
        boundaries = extended(self.boundaries, {token.content: token.id for token in added})
        return self.with_added_tokens(added, boundaries)

    def with_added_tokens(self, added: Iterable[AddedToken], boundaries: Boundaries | None = None) -> Vocabulary:
        """Return a vocabulary with these added tokens instead of its own.

        Args:
            added: The added tokens.
            boundaries: What begins and ends a text; None keeps it.
        """
        state = {**self.__getstate__(), "pattern": self.pattern, "offsets": self.offsets, "ids": self.ids}
        state |= {"merge_list": self.merge_list, "added_tokens": tuple(added)}
        state["boundaries"] = self.boundaries if boundaries is None else boundaries
        return type(self)(**state)  # type: ignore[arg-type]

    @property
    def n_vocab(self) -> int:
        """The highest id plus one."""
        return self.max_token_value + 1

    @property
    def id_limit(self) -> int:
        """The highest id plus one, without the added tokens."""
        return self.encoder.id_limit

    def decoded(self, tokens: Iterable[int]) -> str:
        """Decode ids whose bytes are not UTF-8, with `replaces_byte_runs`."""
        raise NotImplementedError

    @property
    def token_count(self) -> int:
        """The number of tokens, with the added tokens. Less than `n_vocab` if there are unused ids, unless tokens share
        an id."""
        return len(self.ids) + len(self.added_tokens) + len(self.foreign_tokens)

    @property
    def merge_count(self) -> int:
        """The number of pairs of tokens that merge to a token."""
        return self.encoder.pair_count

    @property
    def unreachable_count(self) -> int:
        """The number of tokens that no merge leads to. They are used only where a pretoken is taken whole."""
        return self.encoder.unreachable_count

    @property
    def algorithm(self) -> str:
        """What the vocabulary encodes by: "bpe", or the algorithm of `library`."""
        return "bpe"

    @property
    def takes_white_space(self) -> bool:
        """Whether an added token that is always recognised takes the white space beside it, which decoding loses."""
        return any((token.lstrip or token.rstrip) and not token.special for token in self.added_tokens)

    @property
    def keeps_text(self) -> bool:
        """Whether the ids of any text decode to the text, if no special token in it is allowed."""
        is_changed = self.core_normalizer is not None or bool(self.unknown_bytes) or self.takes_white_space
        is_changed |= self.characters is not None
        return self.splitter.keeps_text and not is_changed

    @property
    def changes_text(self) -> bool:
        """Whether text is normalized, or gets other spaces or unknown tokens, before it is encoded."""
        if self.characters is not None:
            return True
        steps = self.pattern.steps or ()
        keeps = (Split, ByteCharacters)
        return self.core_normalizer is not None or not all(isinstance(step, keeps) for step in steps)

    def added_matcher(self, allowed: AbstractSet[str]) -> _core.AddedTokens:
        """Return what splits a text at its added tokens as ``tokenizers`` does.

        Special tokens that are not allowed stay text. Where there are other added tokens, they still hide tokens that
        overlap them, as with ``encode_special_tokens`` in ``tokenizers``. Otherwise they are not searched for, as in
        tiktoken.

        Args:
            allowed: The texts of the special tokens that become their ids.
        """
        skip_others = len(self.special_tokens) < len(self.added_tokens)
        tokens = [
            (self._searched(token), token.id, token.lstrip, token.rstrip, token.single_word, token.normalized, skipped)
            for token in self.added_tokens
            if not (skipped := token.special and token.content not in allowed) or skip_others
        ]
        return _core.AddedTokens(tokens, self.core_normalizer is not None)

    def _refuse_equal_searches(self) -> None:
        """Refuse two added tokens with the same text to search for: ``tokenizers`` chooses one of them at random."""
        found: dict[str | bytes, AddedToken] = {}
        normalizer = self.core_normalizer
        for token in self.added_tokens if normalizer is not None else ():
            if normalizer is None or not token.normalized or not (text := normalizer.apply(token.content)):
                continue
            other = found.setdefault(text, token)
            if other.id != token.id:
                raise InputError(
                    f"the added tokens {other.content!r} (id {other.id}) and {token.content!r} (id {token.id}) are the"
                    ' same after normalization, and tokenizers chooses one of them at random; set "normalized" of at'
                    " least one of them to false"
                )

    def _searched(self, token: AddedToken) -> str | bytes:
        """Return the text to search for. As in ``tokenizers``, it is normalized if the token is `normalized`."""
        if self.core_normalizer is None or not token.normalized:
            return token.content
        content = self.core_normalizer.apply(token.content)
        if not content:
            raise InputError(
                f'the {token.kind} token {token.content!r} is empty after normalization; set its "normalized" to false'
            )
        return content

    def merges(self) -> list[tuple[int, int, int]]:
        """Return the left, right and merged id of each pair that merges, in merge order."""
        if self.characters is not None:
            return self.characters.triples()
        ids = memoryview(self.encoder.pairs()).cast("I")
        return list(zip(ids[0::3], ids[1::3], ids[2::3], strict=True))

    @cached_property
    def ranks(self) -> dict[bytes, int]:
        """The rank of each token, in rank order and without the added tokens. Do not change it."""
        ids, offsets = self.ids.tolist(), self.offsets.tolist()
        tokens = [self.tokens[begin:end] for begin, end in pairwise(offsets)]
        return {tokens[index]: ids[index] for index in sorted(range(len(ids)), key=ids.__getitem__)}

    def items(self) -> Iterator[tuple[int, bytes]]:
        """Return an iterator over the id and the bytes of each token, without the added tokens."""
        return ((id, token) for token, id in self.ranks.items())

    @cached_property
    def sorted_tokens(self) -> list[bytes]:
        """The tokens in the order of their bytes, without the added tokens. Do not change it."""
        return sorted(self.ranks)

    def __getstate__(self) -> dict[str, object]:
        return {
            "name": self.name,
            "pattern": self.pattern._replace(scanner=None),  # the numbers of scanners may change
            "tokens": self.tokens,
            "offsets": bytes(self.offsets),
            "ids": bytes(self.ids),
            "added_tokens": self.added_tokens,
            "merges_only": self.merges_only,
            "merge_list": None if self.merge_list is None else bytes(self.merge_list),
            "foreign_tokens": self.foreign_tokens,
            "normalizer": self.normalizer,
            "characters": self.characters,
            "boundaries": self.boundaries,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        pattern = state["pattern"]
        state["pattern"] = find_pattern(pattern.name or pattern.text) if pattern.steps is None else pattern
        state["offsets"] = memoryview(state["offsets"]).cast("Q")
        state["ids"] = memoryview(state["ids"]).cast("I")
        if state["merge_list"] is not None:
            state["merge_list"] = memoryview(state["merge_list"]).cast("I")
        self.__init__(**state)  # type: ignore[misc]


def as_added_tokens(special_tokens: Mapping[str, int]) -> list[AddedToken]:
    """Return special tokens, given by text and id, as added tokens.

    >>> as_added_tokens({"<|end|>": 256})[0].id
    256
    """
    return [AddedToken(text, id) for text, id in special_tokens.items()]


def chosen_tokens(
    found: Iterable[AddedToken],
    special_tokens: Mapping[str, int] | Sequence[str] | None,
    ids: Mapping[str, int],
    following: int,
) -> dict[str, AddedToken]:
    """Return the added tokens to use, by their text: those of a file, and those that the caller adds.

    Args:
        found: The added tokens of the file.
        special_tokens: The caller's choice: None for all that were found; names to add to these as special tokens, or
            an empty sequence for no added tokens; or a mapping from text to id to use instead.
        ids: The ids of the file's tokens by text. A name among them keeps its id.
        following: The first id of new names.

    Raises:
        InputError: When `special_tokens` is a str, or a name is given twice.
    """
    if isinstance(special_tokens, Mapping):
        return {token.content: token for token in as_added_tokens(special_tokens)}
    by_text = {token.content: token for token in found}
    if special_tokens is None:
        return by_text
    names = checked_names(special_tokens)
    new = [name for name in names if name not in by_text and name not in ids]
    numbered = {name: following + i for i, name in enumerate(new)}
    chosen = {
        name: by_text[name]._replace(special=True)
        if name in by_text
        else AddedToken(name, ids[name] if name in ids else numbered[name])
        for name in names
    }
    return by_text | chosen if chosen else {}


def checked_names(special_tokens: Sequence[str]) -> list[str]:
    """Return the names of special tokens as a list.

    Raises:
        InputError: When they are a str, which would be read as its letters, or a name is empty or given twice.
    """
    if isinstance(special_tokens, str):
        raise InputError("special_tokens is a str; give a list of strings")
    names = list(special_tokens)
    if "" in names:
        raise InputError("a special token is empty")
    if len(set(names)) < len(names):
        raise InputError("a special token is given twice")
    return names


def check_added_tokens(added_tokens: Iterable[AddedToken]) -> None:
    """Refuse an added token that is empty, not valid Unicode, out of range or listed twice.

    Raises:
        ValueError: When there is one.
    """
    seen = set()
    for token in added_tokens:
        name = f"the {token.kind} token {token.content!r}"
        if not token.content:
            raise ValueError(f"{name} is empty; give it a text or remove it")
        if any("\ud800" <= character <= "\udfff" for character in token.content):
            raise ValueError(f"{name} contains a surrogate, which is not valid Unicode")
        if not 0 <= token.id < 2**32:
            raise ValueError(f"{name} has the id {token.id}; ids are from 0 to 2**32 - 1")
        if token.content in seen:
            raise ValueError(f"{name} is listed twice")
        seen.add(token.content)


def _check_foreign_tokens(foreign_tokens: Mapping[str, int], ids: memoryview) -> None:
    if not foreign_tokens:
        return
    seen = set(ids.tolist())
    for text, id in foreign_tokens.items():
        if id in seen:
            raise ValueError(f"rank {id} appears twice, once with the token {text!r}")
        seen.add(id)
