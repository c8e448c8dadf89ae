"""The page of `bpe serve` with models of a few numbers: one writes what a test says, one can be looked into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from starlette.routing import BaseRoute

from model import ModelConfig, Transformer
from model.serving.app import Api
from model.serving.inside import Inside
from model.serving.page import page_routes
from support.browser import until
from support.serving import Served, byte_tokenizer, serving


def small_transformer() -> Transformer:
    """Return a model of three layers with two heads, for the tokenizer of `serving`."""
    tokenizer = byte_tokenizer()
    config = ModelConfig(
        dim=16, n_layers=3, n_heads=2, n_kv_heads=1, hidden_dim=24, vocab_size=tokenizer.n_vocab, max_seq_len=256
    )
    model = Transformer(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            offset, spread = (0.0, 0.4) if parameter.dim() > 1 else (1.0, 0.1)
            parameter.copy_(offset + spread * torch.randn(parameter.shape, generator=generator))
    return model


@contextmanager
def page_served(inside: Inside | None = None, **settings: Any) -> Iterator[Served]:
    """Run a server with the page. The settings are those of `serving`."""
    shown = inside or Inside(small_transformer(), byte_tokenizer())

    def routes(api: Api) -> Sequence[BaseRoute]:
        return page_routes(api, shown, {"parameters": 134_515_008, "place": "on the CPU"})

    try:
        with serving(page=routes, **settings) as served:
            yield served
    finally:
        shown.close()


class ChatPage:
    """What a reader does on the page Chat.

    Args:
        page: playwright's page.
        served: The server.
    """

    def __init__(self, page: Any, served: Served, address: str = "#chat") -> None:
        self.page, self.served = page, served
        page.goto(f"{served.address}/{address}")
        until(page, "!!document.querySelector('.chat .title')?.textContent")

    def send(self, text: str) -> None:
        """Write a message and send it."""
        self.page.fill(".input", text)
        self.page.press(".input", "Enter")

    def ask(self, text: str, answer: str) -> None:
        """Send a message and wait for the whole answer, which the model is told to give."""
        self.served.writer.answer = answer
        self.send(text)
        self.wait()

    def wait(self) -> None:
        """Wait until no answer is expected."""
        until(
            self.page, "document.querySelector('.send').title.startsWith('Send') && !document.querySelector('.running')"
        )
        self.page.wait_for_timeout(30)

    def turns(self) -> list[str]:
        """Return the text of each turn."""
        found: list[str] = self.page.evaluate(
            "[...document.querySelectorAll('.turn > .body')].map((each) => each.innerText.trim())"
        )
        return found

    def titles(self) -> list[str]:
        """Return the names of the conversations in the list."""
        found: list[str] = self.page.evaluate(
            "[...document.querySelectorAll('.sidebar .name')].map((each) => each.textContent)"
        )
        return found

    def open_settings(self) -> None:
        """Show the settings."""
        self.page.click(".talk-bar [aria-label=Settings]")
