"""The API of the page of tokens: which tokenizers there are, encoding with places, and decoding."""

from __future__ import annotations

import struct
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bpe import Tokenizer
from bpe.errors import InputError
from bpe.playground.http import read_object
from bpe.playground.tokenizers import Shelf
from bpe.vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy.typing as npt

    from bpe._core import AddedTokens

BODY_LIMIT = 8 << 20
"""The largest text of a request, in bytes."""

PART = {"name": "tokens", "title": "Tokens", "module": "/static/tokens.js", "style": "/static/tokens.css"}
"""The part of the page, as /api/about lists it."""

_NUMBER = np.dtype("<u4")
_MOST_DESCRIBED = 10_000  # tokens in a request
_MOST_SPECIAL = 64  # special tokens in the description of a tokenizer


def token_routes(shelf: Shelf) -> list[Route]:
    """Return the routes of the API.

    - ``GET /api/tokens``: the tokenizers to choose from.
    - ``GET /api/tokens/tokenizer?tokenizer=NAME``: what a tokenizer is.
    - ``POST /api/tokens/encode?tokenizer=NAME&special=1``: the body is a text in UTF-8, the answer binary; see
      `encoded`.
    - ``POST /api/tokens/describe`` of ``{"tokenizer", "ids"}``: the bytes of each token.
    - ``POST /api/tokens/decode`` of ``{"tokenizer", "ids"}``: the text of ids.

    Args:
        shelf: The tokenizers. They are used in threads, so that the server answers others meanwhile.
    """

    async def listed(request: Request) -> Response:
        choices = await run_in_threadpool(shelf.choices)
        names = [{"name": each.name, "format": each.format, "group": each.group} for each in choices]
        return JSONResponse({"tokenizers": names, "missing": await run_in_threadpool(shelf.remedies)})

    async def tokenizer(request: Request) -> Response:
        name = _name(request.query_params.get("tokenizer"))
        return JSONResponse(await run_in_threadpool(lambda: description(shelf.load(name))))

    async def encode(request: Request) -> Response:
        name = _name(request.query_params.get("tokenizer"))
        special = request.query_params.get("special", "0")
        if special not in ("0", "1"):
            raise InputError("special: expected 1 to recognise special tokens in the text, or 0")
        body = await request.body()
        content = await run_in_threadpool(lambda: encoded(shelf.load(name), body, special == "1"))
        return Response(content, media_type="application/octet-stream", headers={"cache-control": "no-store"})

    async def describe(request: Request) -> Response:
        name, ids = _name_and_ids(await read_object(request))
        if len(ids) > _MOST_DESCRIBED:
            raise InputError(f"ids: {len(ids):,} ids; send at most {_MOST_DESCRIBED:,} at once")
        return JSONResponse(await run_in_threadpool(lambda: {"tokens": described(shelf.load(name), ids)}))

    async def decode(request: Request) -> Response:
        name, ids = _name_and_ids(await read_object(request))
        return JSONResponse(await run_in_threadpool(lambda: decoded(shelf.load(name), ids)))

    return [
        Route("/api/tokens", listed),
        Route("/api/tokens/tokenizer", tokenizer),
        Route("/api/tokens/encode", encode, methods=["POST"]),
        Route("/api/tokens/describe", describe, methods=["POST"]),
        Route("/api/tokens/decode", decode, methods=["POST"]),
    ]


def _name(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise InputError("tokenizer: missing; give the name of one that /api/tokens lists")
    return value


def _name_and_ids(body: dict[str, Any]) -> tuple[str, list[int]]:
    unknown = sorted(set(body) - {"tokenizer", "ids"})
    if unknown:
        raise InputError(f"{unknown[0][:100]}: not a field of this request; its fields are tokenizer and ids")
    ids = body.get("ids")
    if not isinstance(ids, list):
        raise InputError("ids: expected a list of numbers")
    for place, id in enumerate(ids):
        if type(id) is not int:
            raise InputError(f"ids[{place}]: expected a whole number")
    return _name(body.get("tokenizer")), ids


def encoded(tokenizer: Tokenizer, content: bytes, special: bool) -> bytes:
    """Return the tokens of a text as little-endian numbers of 32 bits.

    Args:
        tokenizer: The tokenizer.
        content: The text. Bytes that are not UTF-8 are encoded as they are where the tokenizer can.
        special: Whether special tokens in the text become their ids.

    Returns:
        The number of tokens; the ids; where each token begins in the text, in bytes; where each ends; and for each
        whether it is a special token, in 8 bits.
    """
    added = tokenizer.special_matchers.allowed("all" if special else frozenset())
    sizes = _sizes(tokenizer.vocabulary, special)
    ids, begins, ends = _adjacent(tokenizer, content, added, sizes) if sizes is not None else (None, None, None)
    if ids is None:
        found, places = tokenizer.vocabulary.encoder.encode_with_places(content, added, False)
        ids = np.array(found, _NUMBER)
        spans = np.fromiter(chain.from_iterable(places), _NUMBER, 2 * len(places))
        begins, ends = spans[0::2], spans[1::2]
    specials = np.isin(ids, np.fromiter(tokenizer.vocabulary.special_tokens.values(), _NUMBER))
    numbers = (np.asarray(each, _NUMBER).tobytes() for each in (ids, begins, ends))
    return b"".join((struct.pack("<I", len(ids)), *numbers, specials.astype(np.uint8).tobytes()))


def _sizes(vocabulary: Vocabulary, special: bool) -> npt.NDArray[np.uint32] | None:
    """Return the number of bytes of a text that each id stands for, or None if that depends on the text."""
    added = [token for token in vocabulary.added_tokens if special or not token.special]
    if (
        vocabulary.library is not None
        or not vocabulary.keeps_text
        or any(token.lstrip or token.rstrip for token in added)
    ):
        return None
    sizes = vocabulary.encoder.token_sizes(vocabulary.n_vocab)
    for token in added:
        size = len(token.content.encode())
        if sizes[token.id] not in (0, size):  # two tokens share the id
            return None
        sizes[token.id] = size
    return sizes


def _adjacent(
    tokenizer: Tokenizer, content: bytes, added: AddedTokens | None, sizes: npt.NDArray[np.uint32]
) -> tuple[Any, Any, Any]:
    """Return the ids of a text and where each token begins and ends, if the tokens are the text in pieces.

    A text of a megabyte takes a tenth of the time of `encode_with_places`, which makes an object for each place.
    """
    ids = tokenizer.vocabulary.encoder.encode_to_numpy(content, added)
    lengths = sizes[ids]
    ends = np.cumsum(lengths, dtype=np.uint32)
    if (int(ends[-1]) if len(ends) else 0) != len(content) or not lengths.all():
        return None, None, None
    return ids, ends - lengths, ends


def described(tokenizer: Tokenizer, ids: list[int]) -> list[dict[str, Any]]:
    """Return the id, the bytes in hexadecimal, the text and the kind of each token.

    Raises:
        InputError: When an id is that of no token.
    """
    specials = set(tokenizer.vocabulary.special_tokens.values())
    tokens = []
    for place, id in enumerate(ids):
        try:
            content = tokenizer.shown_tokens([id])[0]
        except (KeyError, OverflowError):
            raise _no_token(tokenizer, place, id) from None
        text = content.decode("utf-8", "replace")
        tokens.append({"id": id, "bytes": content.hex(), "text": text, "special": id in specials})
    return tokens


def decoded(tokenizer: Tokenizer, ids: list[int]) -> dict[str, Any]:
    """Return the text of ids, and whether their bytes are UTF-8.

    Raises:
        InputError: When an id is that of no token.
    """
    try:
        text = tokenizer.decode(ids)
        content = tokenizer.decode_bytes(ids)
    except (KeyError, OverflowError):
        described(tokenizer, ids)  # raises, and names the first
        raise
    try:
        is_text = content.decode("utf-8") is not None
    except UnicodeDecodeError:
        is_text = False
    return {"text": text, "bytes": len(content), "is_text": is_text}


def _no_token(tokenizer: Tokenizer, place: int, id: int) -> InputError:
    shown = str(id) if -(10**12) < id < 10**12 else "a number of more than 12 digits"
    return InputError(
        f"ids[{place}]: {shown} is the id of no token of {tokenizer.name}; its ids are below {tokenizer.n_vocab:,}"
    )


def description(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what a tokenizer is, for a reader."""
    vocabulary = tokenizer.vocabulary
    specials = sorted(vocabulary.special_tokens, key=lambda text: vocabulary.special_tokens[text])
    return {
        "name": tokenizer.name,
        "tokens": vocabulary.token_count,
        "n_vocab": tokenizer.n_vocab,
        "algorithm": vocabulary.algorithm,
        "pattern": vocabulary.pattern.name if vocabulary.library is None else None,
        "changes_text": not vocabulary.keeps_text,
        "special_count": len(specials),
        "special": specials[:_MOST_SPECIAL],
        "in_front": [token["text"] for token in described(tokenizer, tokenizer.prefix_ids)],
    }
