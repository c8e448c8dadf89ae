"""Which ids of a text are settled, and how the others may come out once more text follows.

The last pretoken of a text may grow, and then its ids change. These are tiktoken's rules for ``encode_with_unstable``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bpe import _core

if TYPE_CHECKING:
    from bpe.tokenizer import Tokenizer

_SPACE = 16  # the bit of \s in the core's character classes


def split_unstable(
    tokenizer: Tokenizer, text: bytes, special: _core.SpecialTokens | None
) -> tuple[list[int], list[list[int]]]:
    """See ``Tokenizer.encode_with_unstable``; `text` is UTF-8, `special` matches the allowed special tokens."""
    core = tokenizer._core
    ids = tokenizer._encode(text, special)
    last_special = special.all_in(text)[-1:] if special else []
    rest = text[last_special[0][1] :] if last_special else text
    unstable = len(core.encode_pretokens([tokenizer._last_pretoken(rest)])) if rest else 0
    if not unstable:
        return ids, []

    # 1. White space before white space may join it: a newline may yet follow.
    def is_blank(id: int) -> bool:
        token = core.token_bytes(id)
        return bool(token) and not token.strip(b" \n\t")

    if is_blank(ids[-unstable]):
        while unstable < len(ids) and is_blank(ids[-unstable - 1]):
            unstable += 1
    ids, tail = ids[:-unstable], ids[-unstable:]
    rest = core.decode_bytes(tail)
    completions: set[tuple[int, ...]] = set()

    # 2. One token may begin with all of the rest.
    for token in tokenizer._tokens_beginning_with(rest):
        completions.add((tokenizer.encode_single_token(token),))

    # 3. A token may begin anywhere within the rest and go on beyond its end: encode what that makes.
    for cut in range(1, len(rest)):
        for token in tokenizer._tokens_beginning_with(rest[cut:]):
            possible = rest[:cut] + token
            try:
                possible.decode("utf-8")
                encoded = tokenizer.encode_ordinary(possible)
            except UnicodeDecodeError:
                encoded = core.merge(possible)
            completions.add(tuple(_covering(core, encoded, len(rest))))

    # 4. The last character, if it is white space, may become a pretoken of its own.
    if len(rest) > 1:
        text_of_rest = rest.decode("utf-8", "replace")
        last = text_of_rest[-1]
        size = len(last.encode())
        ends_whole = rest.endswith(last.encode())
        if ends_whole and len(rest) > size and _core.classes_of(ord(last)) & _SPACE:
            completions.add((*core.merge(rest[:-size]), *core.merge(rest[-size:])))
    return ids, [list(completion) for completion in completions]


def _covering(core: _core.Encoder, ids: list[int], size: int) -> Iterator[int]:
    """The first of the ids, as many as it takes for `size` bytes."""
    covered = 0
    for id in ids:
        yield id
        covered += len(core.token_bytes(id))
        if covered >= size:
            return


def beginning_with(tokens: list[bytes], prefix: bytes) -> Iterator[bytes]:
    """Those of the sorted tokens that begin with `prefix`."""
    for index in range(bisect_left(tokens, prefix), len(tokens)):
        if not tokens[index].startswith(prefix):
            return
        yield tokens[index]
