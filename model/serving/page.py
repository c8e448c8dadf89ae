"""The page of `bpe serve`: the shell with the parts chat, tokens and inside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.routing import Route

from bpe.playground.app import shell_routes
from bpe.playground.http import static_files
from bpe.playground.tokenizers import Shelf
from bpe.playground.tokens import PART as TOKENS
from bpe.playground.tokens import token_routes
from model.serving.app import Api
from model.serving.inside import PART as INSIDE
from model.serving.inside import Inside, inside_routes

PAGES = Path(__file__).parent / "pages"
CHAT = {"name": "chat", "title": "Chat", "module": "/static/model/chat.js", "style": "/static/model/chat.css"}


def page_routes(api: Api, inside: Inside, about: Mapping[str, Any]) -> list[Route]:
    """Return the routes of the page. The APIs of its parts need a key, as the others do; its files do not.

    Args:
        api: The endpoints.
        inside: The model, for the part inside.
        about: What the page says about the model, besides its name, its context, whether it can chat, and the settings
            of sampling where a request sets none.
    """
    service = api.service
    shelf = Shelf(loaded={service.name: service.tokenizer})
    model = {
        "name": service.name,
        "context": service.context,
        "chat": service.format is not None,
        "defaults": dict(service.defaults),
        **about,
    }
    told = {
        "parts": [CHAT, TOKENS, INSIDE],
        "model": model,
        "subject": service.name,
        "tokenizers": shelf.given,
        "needs_key": bool(api.keys),
    }
    guarded = [
        Route(route.path, api.guarded(route.endpoint), methods=sorted(route.methods or ()))
        for route in [*token_routes(shelf), *inside_routes(inside)]
    ]
    return [static_files("/static/model", PAGES), *shell_routes(told), *guarded]
