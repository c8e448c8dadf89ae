"""The application of `bpe playground`: the shell, and the page of tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from bpe.playground.http import application, page, static_files
from bpe.playground.tokenizers import Shelf
from bpe.playground.tokens import BODY_LIMIT, PART, token_routes

PAGES = Path(__file__).parent / "pages"
"""The shell, and what the parts share."""


def shell_routes(about: Mapping[str, Any]) -> list[Route]:
    """Return the routes of the shell: the page itself, its files, and /api/about.

    Args:
        about: What /api/about answers. "parts" is a list of {"name", "title", "module", "style"}: the name in the
            address, the title of the tab, and the paths of the module and (optional) of the style sheet. "subject" is
            what the page is about, shown at the top. The parts get all of it.
    """

    async def answer(request: Request) -> Response:
        return JSONResponse(dict(about), headers={"cache-control": "no-store"})

    return [page(PAGES / "index.html"), static_files("/static", PAGES), Route("/api/about", answer)]


def playground(shelf: Shelf, hosts: Collection[str] = (), chosen: Sequence[str] = ()) -> ASGIApp:
    """Return the application of `bpe playground`.

    Args:
        shelf: The tokenizers.
        hosts: The names by which the server may be addressed, besides localhost and addresses in digits.
        chosen: The tokenizers that the page shows at first.
    """
    about = {"parts": [PART], "model": None, "subject": "", "tokenizers": list(chosen)}
    return application([*shell_routes(about), *token_routes(shelf)], hosts=hosts, body_limit=BODY_LIMIT)
