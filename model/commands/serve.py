"""`bpe serve`: answer the requests of many clients with a model, over OpenAI's API and on a page in the browser."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bpe.commands.inputs import refuse_text
from bpe.commands.options import Command, examples, group, progress_options
from bpe.commands.terminal import amount
from bpe.progress import say
from model.commands.options import (
    announce_unused,
    computation_options,
    eos_token_option,
    load_model,
    place_of,
    template_options,
    template_variables,
)

if TYPE_CHECKING:
    from bpe import Tokenizer
    from bpe.chat import ChatFormat
    from model.checkpoint.opened import Checkpoint
    from model.generation.grammar import GrammarCompiler
    from model.serving.service import Service

TEMPERATURE, TOP_P = 1.0, 1.0  # the defaults of OpenAI's API
LONGEST_CONTEXT = 8192
"""Tokens of the context where --context is not given; a model's own may need more memory than the machine has."""


@click.command(cls=Command)
@click.argument("name", metavar="MODEL")
@group(
    "Address",
    click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="Address to listen on."),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=8000,
        metavar="N",
        help="Port to listen on; 0 for any free port.",
    ),
    click.option(
        "--name",
        "served_name",
        metavar="NAME",
        help="Name of the model in requests.  [default: the last part of MODEL]",
    ),
)
@group(
    "Access",
    click.option(
        "--api-key-file",
        metavar="FILE",
        help="File with API keys, one a line, of which requests must have one.  [default: requests need no key]",
    ),
    click.option(
        "--no-api-key",
        "is_open",
        is_flag=True,
        help="Listen on an address other than this machine's own without keys. Everybody who reaches it can use it.",
    ),
    click.option(
        "--allow-host",
        "hosts",
        multiple=True,
        metavar="NAME",
        help="Name of the server in addresses, such as that of a reverse proxy; repeatable.",
    ),
    click.option(
        "--allow-origin",
        "origins",
        multiple=True,
        metavar="URL",
        help="Web site whose pages may use the server, such as https://chat.example.com; repeatable.",
    ),
)
@group(
    "Load",
    click.option(
        "--parallel",
        type=click.IntRange(1, 1024),
        default=8,
        metavar="N",
        help="Largest number of texts that are generated at the same time.",
    ),
    click.option(
        "--waiting",
        type=click.IntRange(0, 100_000),
        default=128,
        metavar="N",
        help="Largest number of texts that wait; more requests are refused.",
    ),
    click.option(
        "--context",
        type=click.IntRange(min=2),
        metavar="N",
        help="Largest number of tokens of a prompt and its answer.  [default: the model's context, at most 8,192]",
    ),
    click.option(
        "--memory",
        type=click.FloatRange(min=0, min_open=True),
        metavar="GB",
        help="Memory for keys and values.  [default: enough for --parallel texts of --context tokens]",
    ),
    click.option(
        "--deadline",
        type=click.FloatRange(min=0),
        default=30.0,
        metavar="SECONDS",
        help="Seconds that running requests have to finish after SIGTERM or Ctrl-C.",
    ),
)
@template_options
@computation_options(eos_token_option)
@group(
    "Output",
    click.option(
        "--log/--no-log",
        "is_logged",
        default=True,
        help="Print a line for each request, unless --quiet.",
    ),
)
@progress_options(with_events=False)
@examples(
    "bpe serve smollm2",
    "bpe serve runs/assistant --port 0 --parallel 16",
    "bpe serve smollm2 --host 0.0.0.0 --api-key-file keys.txt --allow-host llm.example.com",
)
def serve(
    name: str,
    host: str,
    port: int,
    served_name: str | None,
    api_key_file: str | None,
    is_open: bool,
    hosts: Sequence[str],
    origins: Sequence[str],
    parallel: int,
    waiting: int,
    context: int | None,
    memory: float | None,
    deadline: float,
    template: str | None,
    template_args: Sequence[str],
    dtype: str | None,
    device: str,
    backend: str,
    cache_dtype: str | None,
    threads: int | None,
    eos_tokens: Sequence[str],
    ignore_unknown: bool,
    is_logged: bool,
) -> None:
    """Serve a model: an API like OpenAI's, and a page in the browser.

    The API has /v1/chat/completions, /v1/completions and /v1/models, and beside them /tokenize, /detokenize, /health
    and /metrics. The page is at /.

    The address is printed to stdout when the server answers. SIGTERM or Ctrl-C ends it: new requests are refused, and
    running ones finish within --deadline. A second Ctrl-C ends it at once.
    """
    from bpe.locate import locate
    from bpe.playground.listening import address_of, listen
    from model.serving.access import Keys, check_exposure, checked_origins, read_keys

    refuse_text(name)
    variables = template_variables(template_args)
    path = locate(name, "model")  # before torch is imported, so that a wrong name fails at once
    keys, warning = read_keys(api_key_file) if api_key_file is not None else ([], None)
    if warning:
        click.echo(f"warning: {warning}", err=True)
    allowed = checked_origins(origins)
    listening, inside = listen(host, port), None
    try:
        check_exposure(listening.getsockname()[0], bool(keys), is_open)
        from model.checkpoint import open_checkpoint
        from model.serving.app import Api, serving_application
        from model.serving.inside import Inside
        from model.serving.page import page_routes
        from model.serving.server import serve_until_stopped

        checkpoint = open_checkpoint(path, ignore_unknown)
        announce_unused(checkpoint)
        model, tokenizer = load_model(
            path, dtype, device, backend, threads, None, eos_tokens, ignore_unknown, cache_dtype
        )
        served = served_name or _last_part(name)
        limits = {"parallel": parallel, "waiting": waiting, "context": context, "memory": memory}
        chat = _chat_format(checkpoint, tokenizer, template, variables)
        service = _service(served, checkpoint, model, tokenizer, chat, limits)
        api = Api(service, Keys(keys), log=say if is_logged else None)
        inside = Inside(model, tokenizer, path)
        about = {"parameters": model.config.n_parameters, "place": place_of(model)}
        routes = page_routes(api, inside, about)
        app = serving_application(api, hosts=[host, *hosts], origins=allowed, routes=routes)

        def started() -> None:
            click.echo(address_of(listening))
            say(_first_line(service, model))

        service.scheduler.start()
        serve_until_stopped(app, api, listening, deadline=deadline, started=started, say=say)
    finally:
        listening.close()
        if inside is not None:
            inside.close()


def _last_part(name: str) -> str:
    """Return the name of a model in requests: a path of this machine is nobody's business."""
    last = Path(name).resolve().name if Path(name).exists() else name
    return last.removesuffix(".gguf") or "model"


def _chat_format(
    checkpoint: Checkpoint, tokenizer: Tokenizer, template: str | None, variables: dict[str, Any]
) -> tuple[ChatFormat | None, str]:
    """Return the chat format, or None and why there is none."""
    from bpe.chat import NoChatFormatError, chat_format

    try:
        return chat_format(checkpoint.tokenizer, tokenizer, template, variables), ""
    except NoChatFormatError as error:
        if template is not None or variables:
            raise
        return None, str(error)


def _service(
    name: str,
    checkpoint: Checkpoint,
    model: Any,
    tokenizer: Tokenizer,
    chat: tuple[ChatFormat | None, str],
    limits: dict[str, Any],
) -> Service:
    """Return what is served."""
    from model.serving.scheduler import Scheduler
    from model.serving.service import Service

    format, why = chat
    config = model.config
    config.check_tokens(tokenizer.n_vocab)
    end_ids = frozenset(tokenizer.eos_ids)
    ends = end_ids if format is None else end_ids | format.end_ids
    n_vocab = min(max(tokenizer.n_vocab, *(id + 1 for id in ends if id < config.vocab_size), 0), config.vocab_size)
    context = limits["context"] or min(config.max_seq_len, LONGEST_CONTEXT)
    memory = None if limits["memory"] is None else int(limits["memory"] * 1e9)
    scheduler = Scheduler(
        model,
        parallel=limits["parallel"],
        context=context,
        memory=memory,
        waiting=limits["waiting"],
        n_vocab=n_vocab,
    )
    defaults = {"temperature": TEMPERATURE, "top_p": TOP_P, **checkpoint.sampling}
    lock = threading.Lock()

    @functools.cache
    def made() -> GrammarCompiler:
        from model.generation.grammar import GrammarCompiler

        return GrammarCompiler(tokenizer, n_vocab, ends)

    def compiler() -> GrammarCompiler:
        with lock:  # it takes up to a second, for the first request that needs it
            return made()

    return Service(name, tokenizer, format, scheduler, defaults, end_ids, why, compiler)


def _first_line(service: Service, model: Any) -> str:
    """Return what is served and with which limits, for a person."""
    scheduler = service.scheduler
    size = amount(model.config.n_parameters).strip()
    return (
        f"bpe: {service.name} ({size}) {place_of(model)}; parallel {scheduler.parallel}, context "
        f"{scheduler.context:,}, {amount(scheduler.memory).strip()}B for keys and values"
    )
