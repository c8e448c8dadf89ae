"""A server in a thread, whose model writes what a test says."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from starlette.routing import BaseRoute

from bpe import Tokenizer
from bpe.chat import TemplateChat
from bpe.playground.listening import listen
from model.generation.grammar import GrammarCompiler
from model.generation.sequence_parts import Part
from model.serving.access import Keys
from model.serving.app import Api, serving_application
from model.serving.scheduler import Scheduler
from model.serving.server import new_serve_server
from model.serving.service import Service
from support.references import BYTE_RANKS
from support.toy_sequences import ToySequences, logits_of, toy_model

SPECIAL = ("<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<|endoftext|>")
TEMPLATE = """\
{%- if tools %}<|im_start|>system
Tools: {% for tool in tools %}{{ tool | tojson }}
{% endfor %}Call one as <tool_call>
{"name": NAME, "arguments": {...}}
</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.content %}{{ message.content }}{% endif %}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""A template in the style of Qwen and Hermes."""


def byte_tokenizer() -> Tokenizer:
    """Return a tokenizer of bytes and the special tokens of the template."""
    special = {text: 256 + number for number, text in enumerate(SPECIAL)}
    return Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=special)


class Writer(ToySequences):
    """The memory of a model that answers each dialog with `answer`, and continues other texts at random."""

    def __init__(self, count: int, tokenizer: Tokenizer) -> None:
        super().__init__(count, tokenizer.n_vocab)
        self.tokenizer = tokenizer
        self.answer = "Hello, world!"
        self._header = tokenizer.encode("<|im_start|>assistant\n", allowed_special="all")

    def read(self, parts: Sequence[Part]) -> Any:
        rows = super().read(parts)
        for row, part in zip(rows, (each for each in parts for _ in range(each.wanted)), strict=True):
            row[:] = self.logits(self.texts[part.sequence])
        return rows

    def logits(self, text: Sequence[int]) -> Any:
        """Return the logits of the token after a text."""
        logits = logits_of(text, self.vocabulary)
        logits[256:] -= 20  # no special tokens by chance
        size = len(self._header)
        place = next((at for at in range(len(text) - size, -1, -1) if [*text[at : at + size]] == self._header), None)
        if place is None:
            return logits
        said = [*text[place + size :]]
        script = [*self.tokenizer.encode(self.answer, allowed_special="all"), self.tokenizer.encode_single_token(
            "<|im_end|>")]  # fmt: skip
        if said == script[: len(said)] and len(said) < len(script):
            logits[script[len(said)]] = 100.0
        return np.float32(logits)


class Served:
    """A server that runs."""

    def __init__(self, writer: Writer, api: Api, address: str, server: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.writer, self.api, self.address, self.server, self.loop = writer, api, address, server, loop

    @property
    def base_url(self) -> str:
        return f"{self.address}/v1"

    @property
    def scheduler(self) -> Scheduler:
        return self.api.service.scheduler


def new_service(writer: Writer, *, parallel: int = 4, context: int = 2048, waiting: int = 8, **changes: Any) -> Service:
    """Return a service whose model is a writer."""
    tokenizer = writer.tokenizer
    scheduler = Scheduler(toy_model(context, tokenizer.n_vocab), parallel=parallel, waiting=waiting, sequences=writer)
    end = tokenizer.encode_single_token
    ends = frozenset([end("<|endoftext|>"), end("<|im_end|>")])
    settings: dict[str, Any] = {
        "compiler": functools.cache(lambda: GrammarCompiler(tokenizer, tokenizer.n_vocab, ends)),
        "format": TemplateChat(tokenizer, TEMPLATE, eos_token="<|im_end|>"),
        "end_ids": frozenset([end("<|endoftext|>")]),
        "defaults": {"temperature": 1.0, "top_p": 1.0},
        **changes,
    }
    return Service("tiny", tokenizer, scheduler=scheduler, **settings)


@contextmanager
def serving(
    keys: Sequence[str] = (),
    lines: list[str] | None = None,
    origins: Sequence[str] = (),
    page: Callable[[Api], Sequence[BaseRoute]] = lambda api: (),
    **settings: Any,
) -> Iterator[Served]:
    """Run a server on a free port.

    Args:
        keys: The API keys.
        lines: Gets the lines of the log.
        origins: As for `serving_application`.
        page: Returns the routes of the page.
        settings: Settings of `new_service`.
    """
    writer = Writer(2 * settings.get("parallel", 4), byte_tokenizer())
    service = new_service(writer, **settings)
    api = Api(service, Keys(keys), None if lines is None else lines.append)
    listening = listen("127.0.0.1", 0)
    started = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    def begun() -> None:
        loops.append(asyncio.get_running_loop())
        started.set()

    app = serving_application(api, origins=origins, routes=page(api))
    server = new_serve_server(app, api, deadline=5, started=begun)
    thread = threading.Thread(target=server.run, args=([listening],))
    service.scheduler.start()
    thread.start()
    assert started.wait(20)
    try:
        host, port = listening.getsockname()
        yield Served(writer, api, f"http://{host}:{port}", server, loops[0])
    finally:
        if writer.gate is not None:
            writer.gate.release(100_000)
        loops[0].call_soon_threadsafe(server.stop)
        thread.join(20)
        listening.close()
        assert not thread.is_alive()
