"""The ids of a text that may continue: which are settled, and how the others may begin once more text follows.

The last pretoken of a text may grow, which changes its ids. The rules are those of tiktoken's ``encode_with_unstable``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

from bpe import _core
from bpe.vocabulary import Vocabulary

_SPACE = 16  # the bit of \s in the core's character classes


def split_unstable(
    vocabulary: Vocabulary,
    encode: Callable[[bytes, _core.AddedTokens | None], list[int]],
    text: bytes,
    added: _core.AddedTokens | None,
) -> tuple[list[int], list[list[int]]]:
    """Return the stable ids of a text and the completions of the rest; see `Tokenizer.encode_with_unstable`.

    Args:
        vocabulary: The vocabulary to encode with.
        encode: Encodes UTF-8, with the added tokens that a matcher finds.
        text: The text, in UTF-8.
        added: The matcher of the added tokens to recognise, or None.
    """
    ids, rest = _settled(vocabulary, encode, text, added)
    completions = set(_completions(vocabulary, encode, rest)) if rest else set()
    if vocabulary.always_added is not None:
        ids, completions = _before_added_tokens(vocabulary, encode, text, added, (ids, completions))
    return ids, [list(completion) for completion in completions]


def _completions(
    vocabulary: Vocabulary, encode: Callable[[bytes, _core.AddedTokens | None], list[int]], rest: bytes
) -> Iterator[tuple[int, ...]]:
    """How the rest of a text may begin once more text follows; steps 2 to 4 of tiktoken's rules."""
    encoder = vocabulary.encoder

    # 2. One token may begin with all of the rest.
    for token in _beginning_with(vocabulary.sorted_tokens, rest):
        yield (vocabulary.ranks[token],)
    yield from _across_the_end(vocabulary, encode, rest)

    # 4. The last character, if it is white space, may become a pretoken of its own.
    if len(rest) > 1:
        last = rest.decode("utf-8", "replace")[-1]
        size = len(last.encode())
        is_whole = rest.endswith(last.encode())
        if is_whole and len(rest) > size and _core.classes_of(ord(last)) & _SPACE:
            yield (*encoder.merge(rest[:-size]), *encoder.merge(rest[-size:]))


def _before_added_tokens(
    vocabulary: Vocabulary,
    encode: Callable[[bytes, _core.AddedTokens | None], list[int]],
    text: bytes,
    added: _core.AddedTokens | None,
    found: tuple[list[int], set[tuple[int, ...]]],
) -> tuple[list[int], set[tuple[int, ...]]]:
    """Return stable ids and completions that hold if an added token may begin in the text and end after it."""
    stable, completions = found
    ids = encode(text, added)
    feed = _core.Stream(vocabulary.encoder, added, None).feed(text)
    certain = min(len(feed), len(stable))
    between = stable[certain:]
    completions = {(*between, *completion) for completion in completions}
    if certain < len(ids):
        completions.add(tuple(ids[certain:]))
    for token in vocabulary.added_tokens:
        content = token.content.encode()
        for size in range(1, 0 if token.special else min(len(content), len(text) + 1)):
            before = encode(text[:-size], added) if text.endswith(content[:size]) else []
            if text.endswith(content[:size]) and before[:certain] == ids[:certain]:
                completions.add((*before[certain:], token.id))
    return ids[:certain], completions


def encode_truncated(
    vocabulary: Vocabulary, encode: Callable[[bytes, _core.AddedTokens | None], list[int]], content: bytes
) -> list[int]:
    """Return the ids of bytes that may be a truncated text. The rules are those of tiktoken's ``_encode_bytes``.

    Everything from the last pretoken before the first byte that is not UTF-8 is merged as one pretoken.

    Args:
        vocabulary: The vocabulary to encode with.
        encode: As in `split_unstable`.
        content: The bytes.
    """
    if vocabulary.changes_text:
        return encode(content, vocabulary.always_added)  # tiktoken has no such vocabulary
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        ids, rest = _settled(vocabulary, encode, content[: error.start], vocabulary.always_added)
        return ids + vocabulary.encoder.encode_pretokens([rest + content[error.start :]])
    return encode(content, vocabulary.always_added)


def _settled(
    vocabulary: Vocabulary,
    encode: Callable[[bytes, _core.AddedTokens | None], list[int]],
    text: bytes,
    added: _core.AddedTokens | None,
) -> tuple[list[int], bytes]:
    """Step 1: the ids before the last pretoken, and the bytes of the pretoken.

    White space may join the white space before it if, for example, a newline follows. Then both count as the last
    pretoken.
    """
    encoder = vocabulary.encoder
    ids = encode(text, added)
    last_added = added.all_in(text)[-1:] if added else []
    rest = text[last_added[0][1] :] if last_added else text
    unstable = len(encoder.encode_pretokens([_last_pretoken(vocabulary, rest)])) if rest else 0
    if not unstable:
        return ids, b""
    if _is_blank(encoder, ids[-unstable]):
        while unstable < len(ids) and _is_blank(encoder, ids[-unstable - 1]):
            unstable += 1
    return ids[:-unstable], encoder.decode_bytes(ids[-unstable:])


def _across_the_end(
    vocabulary: Vocabulary, encode: Callable[[bytes, _core.AddedTokens | None], list[int]], rest: bytes
) -> Iterator[tuple[int, ...]]:
    """Step 3: a token may begin anywhere within the rest and continue beyond its end. Encode each such text."""
    for cut in range(1, len(rest)):
        for token in _beginning_with(vocabulary.sorted_tokens, rest[cut:]):
            possible = rest[:cut] + token
            try:
                possible.decode("utf-8")
                encoded = encode(possible, vocabulary.always_added)
            except UnicodeDecodeError:
                encoded = vocabulary.encoder.merge(possible)
            yield tuple(_covering(vocabulary.encoder, encoded, len(rest)))


def _last_pretoken(vocabulary: Vocabulary, text: bytes) -> bytes:
    pretokens = vocabulary.splitter.split(text)
    return pretokens[-1] if pretokens else b""


def _is_blank(encoder: _core.Encoder, id: int) -> bool:
    token = encoder.token_bytes(id)
    return bool(token) and not token.strip(b" \n\t")


def _covering(encoder: _core.Encoder, ids: list[int], size: int) -> Iterator[int]:
    """The first of the ids, as many as it takes to cover `size` bytes."""
    covered = 0
    for id in ids:
        yield id
        covered += len(encoder.bytes_of(id))
        if covered >= size:
            return


def _beginning_with(tokens: list[bytes], prefix: bytes) -> Iterator[bytes]:
    """The sorted tokens that begin with `prefix`."""
    for index in range(bisect_left(tokens, prefix), len(tokens)):
        if not tokens[index].startswith(prefix):
            return
        yield tokens[index]
