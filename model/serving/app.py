"""The application of `bpe serve`: OpenAI's API, a few endpoints beside it, and the page."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bpe.playground.http import application, error_response
from model.serving.access import Bodies, Keys, drop_body
from model.serving.answers import Delta
from model.serving.fields import Fields, read_object
from model.serving.messages import read_messages, read_tools
from model.serving.metrics import CONTENT_TYPE, Metrics
from model.serving.refusals import Refusal
from model.serving.requests import Options, check_model, read_chat, read_completion
from model.serving.responses import DONE, WAITING, ChatForm, CompletionForm, Form, error_event, usage_of
from model.serving.runs import Bridge, Run
from model.serving.service import Service, unknown_model
from model.serving.texts import Busy

PATIENCE = 15.0
"""Seconds without a token after which a stream has a comment, so that a proxy does not take it for dead."""
PAGE_BODY_LIMIT = 32 << 20
"""Bytes of a body for the page, which takes longer texts than the API."""
MOST_LISTED = 1_000_000
"""Ids in a response of /tokenize or a request of /detokenize."""
_PREPARING = 4  # threads that read requests and encode prompts
_LARGE = 256_000  # bytes of a body that is large
_FAILED = "an error in the server; its log has the details"
_LOG = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]


class Api:
    """The endpoints.

    Args:
        service: The model.
        keys: The API keys.
        log: Takes a line about each response; None for no lines.
    """

    def __init__(self, service: Service, keys: Keys | None = None, log: Callable[[str], object] | None = None) -> None:
        self.service, self.keys = service, keys or Keys()
        self.metrics = Metrics()
        self.is_stopping = False
        """Whether requests for text are refused, because the server is to stop."""
        self.runs: set[Run] = set()
        """Requests for text that have no whole response yet."""
        self._bridge, self._bodies = Bridge(), Bodies()
        self._log = log
        self._pool = ThreadPoolExecutor(_PREPARING, "prepare")
        self._large_pool = ThreadPoolExecutor(1, "prepare-large")  # so that others do not wait for large requests

    def routes(self) -> list[BaseRoute]:
        """Return the routes of the API."""
        return [
            Route("/v1/chat/completions", self.guarded(self._chat), methods=["POST"]),
            Route("/v1/completions", self.guarded(self._completion), methods=["POST"]),
            Route("/v1/models", self.guarded(self._models)),
            Route("/v1/models/{name:path}", self.guarded(self._model)),
            Route("/tokenize", self.guarded(self._tokenize), methods=["POST"]),
            Route("/detokenize", self.guarded(self._detokenize), methods=["POST"]),
            Route("/metrics", self.guarded(self._metrics)),
            Route("/health", self._health),
        ]

    def guarded(self, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint for which requests need a key."""

        async def checked(request: Request) -> Response:
            try:
                self.keys.check(request)
            except Refusal:
                await drop_body(request)
                raise
            return await endpoint(request)

        return checked

    @asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """Open and close what the endpoints use."""
        self._bridge.open()
        try:
            yield
        finally:
            for pool in (self._pool, self._large_pool):
                pool.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, body: bytes, work: Callable[[bytes], Any]) -> Any:
        """Do the work for the body of a request in a thread."""
        pool = self._large_pool if len(body) > _LARGE else self._pool
        return await asyncio.get_running_loop().run_in_executor(pool, work, body)

    @property
    def running(self) -> int:
        """The number of requests for text that have no whole response yet."""
        return len(self.runs)

    # Text

    async def _chat(self, request: Request) -> Response:
        def prepared(body: bytes) -> tuple[Run, Form, Options]:
            asked = read_chat(read_object(body), self.service.name)
            run = Run(self.service.chat_jobs(asked))
            calls = self.service.call_format if asked.tools else None
            form = ChatForm(self.service.name, self.service.fingerprint, asked.options, asked.options.n, calls)
            return run, form, asked.options

        return await self._generated(request, prepared)

    async def _completion(self, request: Request) -> Response:
        def prepared(body: bytes) -> tuple[Run, Form, Options]:
            asked = read_completion(read_object(body), self.service.name)
            jobs = self.service.completion_jobs(asked)
            count = sum(len(job.answers) for job in jobs)
            form = CompletionForm(self.service.name, self.service.fingerprint, asked.options, count)
            return Run(jobs), form, asked.options

        return await self._generated(request, prepared)

    async def _generated(self, request: Request, prepare: Callable[[bytes], tuple[Run, Form, Options]]) -> Response:
        if self.is_stopping:
            await drop_body(request)
        self._refuse_if_stopping()
        body = await self._bodies.read(request)

        def started(body: bytes) -> tuple[Run, Form, Options]:
            run, form, options = prepare(body)
            run.start(self.service.scheduler, self._bridge)
            return run, form, options

        self._refuse_if_stopping()
        began = time.monotonic()
        run, form, options = await self._in_thread(body, started)
        run.began = began
        self.runs.add(run)
        if options.stream:
            return _Stream(self, run, form, options)
        try:
            return await self._whole(request, run, form)
        finally:
            self.ended(run)

    def _refuse_if_stopping(self) -> None:
        if self.is_stopping:
            raise self._stopping()

    def _stopping(self) -> Refusal:
        return Refusal("the server is shutting down; try again later", None, "server_stopping", 503, 5)

    async def _whole(self, request: Request, run: Run, form: Form) -> Response:
        """Return the response with all answers; cancel them if the client goes away."""
        watching = asyncio.create_task(_watch(request.receive, run))
        try:
            for job in run.jobs:
                for number, answer in enumerate(job.answers):
                    form.collect(job.first + number, answer.begin())
            while not run.is_done and not run.is_cancelled:
                for index, delta in await run.deltas(PATIENCE):
                    self._raise_error(delta)
                    form.collect(index, delta)
        finally:
            watching.cancel()
            if not run.is_done:
                run.cancel()
        if run.is_cancelled:
            raise ClientDisconnect
        return JSONResponse(form.whole(_usage(run)))

    def _raise_error(self, delta: Delta) -> None:
        if delta.finish == "error":
            raise self.refusal_of(delta)

    def refusal_of(self, delta: Delta) -> Refusal:
        """Return the error that ended an answer."""
        if delta.is_callers_fault:
            return Refusal(delta.error or "the text cannot be generated")
        if self.is_stopping:
            return self._stopping()
        return Refusal(_FAILED, None, None, 500)  # the scheduler has logged the details

    def ended(self, run: Run) -> None:
        """Count a request whose response has ended."""
        self.runs.discard(run)
        self.metrics.duration.add(time.monotonic() - run.began)
        if run.first_token is not None:
            self.metrics.first_token.add(run.first_token - run.began)

    # What is beside text

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._described()]})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name != self.service.name:
            raise unknown_model(self.service, name)
        return JSONResponse(self._described())

    def _described(self) -> dict[str, Any]:
        return {
            "id": self.service.name,
            "object": "model",
            "created": self.service.created,
            "owned_by": "bpe-llama",
            "max_model_len": self.service.context,
        }

    async def _tokenize(self, request: Request) -> Response:
        body = await self._bodies.read(request)
        return JSONResponse(await self._in_thread(body, lambda body: self._tokenized(Fields(read_object(body)))))

    def _tokenized(self, fields: Fields) -> dict[str, Any]:
        check_model(fields, self.service.name, is_needed=False)
        with_texts = fields.flag("return_token_strs")
        tokenizer = self.service.tokenizer
        if fields.has("messages"):
            tools = read_tools(fields)
            messages = read_messages(fields.any("messages"))
            fields.finish()
            ids = self.service.chat_ids(messages, tools)
        else:
            adds = fields.any("add_special_tokens")
            text = fields.text("prompt")
            if text is None:
                raise fields.refusal("prompt", "is missing; give a text, or messages")
            if not isinstance(adds, bool) and adds is not None:
                raise fields.refusal("add_special_tokens", "must be true or false")
            fields.finish()
            prefix = [] if adds is False else tokenizer.prefix_ids
            ids = prefix + tokenizer.encode_ordinary(text)
        if len(ids) > MOST_LISTED:
            raise Refusal(f"the text has {len(ids):,} tokens; the server lists at most {MOST_LISTED:,}")
        found = {"count": len(ids), "max_model_len": self.service.context, "tokens": ids}
        if with_texts:
            found["token_strs"] = [tokenizer.decode_single_token_bytes(id).decode(errors="replace") for id in ids]
        return found

    async def _detokenize(self, request: Request) -> Response:
        body = await self._bodies.read(request)
        return JSONResponse(await self._in_thread(body, lambda body: self._detokenized(Fields(read_object(body)))))

    def _detokenized(self, fields: Fields) -> dict[str, Any]:
        check_model(fields, self.service.name, is_needed=False)
        ids = fields.needed("tokens", "a list of ids")
        fields.finish()
        most = self.service.tokenizer.max_token_value
        if not isinstance(ids, list) or not all(type(id) is int and 0 <= id <= most for id in ids):
            raise fields.refusal("tokens", f"must be a list of ids from 0 to {most:,}")
        if len(ids) > MOST_LISTED:
            raise fields.refusal("tokens", f"has {len(ids):,} ids; the server decodes at most {MOST_LISTED:,}")
        try:
            return {"prompt": self.service.tokenizer.decode(ids)}
        except KeyError as error:
            raise fields.refusal("tokens", f"has the id {error.args[0]}, which no token has") from None

    async def _health(self, request: Request) -> Response:
        if self.is_stopping:
            return JSONResponse({"status": "stopping"}, 503, {"retry-after": "5"})
        return JSONResponse({"status": "ok"})

    async def _metrics(self, request: Request) -> Response:
        text = self.metrics.text(self.service.scheduler.statistics(), self.service.name)
        return Response(text, media_type=CONTENT_TYPE)

    def note(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a response, and write a line about it: neither headers nor the query, which may hold secrets."""
        route = scope.get("route")
        path = route.path if isinstance(route, Route) else "other"
        self.metrics.count(path, status)
        if self._log is not None:
            shown = scope["path"][:200].encode("unicode_escape").decode()
            self._log(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {scope['method'][:20]} {shown} {status} {seconds:.3f} s")


class _Stream(Response):
    """The answers to a request as server-sent events."""

    media_type = "text/event-stream"

    def __init__(self, api: Api, run: Run, form: Form, options: Options) -> None:
        # A proxy must hand each event on at once.
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._api, self._run, self._form, self._options = api, run, form, options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        run = self._run
        watching = asyncio.create_task(_watch(receive, run))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for events in self._events():
                await send({"type": "http.response.body", "body": events, "more_body": True})
            if not run.is_cancelled:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            watching.cancel()
            if not run.is_done:
                run.cancel()
            self._api.ended(run)

    async def _events(self) -> AsyncIterator[bytes]:
        run, form = self._run, self._form
        for job in run.jobs:
            for number, answer in enumerate(job.answers):
                index, delta = job.first + number, answer.begin()
                events = b"".join(map(form.event, form.begin(index)))
                if not delta.is_empty:
                    events += form.events(index, delta)
                if events:
                    yield events
        while not run.is_done and not run.is_cancelled:
            deltas = await run.deltas(PATIENCE)
            failed = next((delta for _, delta in deltas if delta.finish == "error"), None)
            if failed is not None:
                refusal = self._api.refusal_of(failed)
                yield error_event(error_of(refusal))
                return
            if deltas:
                yield b"".join(form.events(index, delta) for index, delta in deltas)
            elif not run.is_cancelled and run.is_idle:
                yield WAITING
        if not run.is_cancelled:
            yield (form.usage_event(_usage(run)) if self._options.include_usage else b"") + DONE


async def _watch(receive: Receive, run: Run) -> None:
    """Cancel a run when its client goes away."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            run.cancel()
            return


def _usage(run: Run) -> dict[str, Any]:
    return usage_of(run.prompt_tokens, run.completion_tokens, run.cached_tokens)


def error_of(refusal: Refusal) -> dict[str, Any]:
    """Return a refusal in the form of OpenAI's API."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = kinds.get(refusal.status, "server_error" if refusal.status >= 500 else "invalid_request_error")
    return {"message": refusal.message, "type": kind, "param": refusal.param, "code": refusal.code}


def _refused(request: Request, refusal: Refusal) -> Response:
    headers = {} if refusal.retry_after is None else {"retry-after": str(refusal.retry_after)}
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": error_of(refusal)}, refusal.status, headers)


def _busy(request: Request, busy: Busy) -> Response:
    status, code = (503, "server_stopping") if busy.is_stopping else (429, "server_busy")
    return _refused(request, Refusal(f"{busy}; try again later", None, code, status, busy.retry_after))


def _failed(request: Request, error: Exception) -> Response:
    return error_response(500, _FAILED)


class _Noting:
    """ASGI middleware that counts responses and writes a line about each."""

    def __init__(self, app: ASGIApp, api: Api) -> None:
        self._app, self._api = app, api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 499, time.monotonic()  # 499: the client went away before the response

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except ClientDisconnect:
            pass
        except Exception:  # Starlette has answered with 500 and raises it again for the server to log
            _LOG.exception("%s %s failed", scope["method"], scope["path"][:200].encode("unicode_escape").decode())
        finally:
            self._api.note(scope, status, time.monotonic() - began)


def serving_application(
    api: Api,
    *,
    hosts: Collection[str] = (),
    origins: Collection[str] = (),
    routes: Sequence[BaseRoute] = (),
) -> ASGIApp:
    """Return the application.

    Args:
        api: The endpoints.
        hosts: The names by which the server may be addressed, besides localhost and addresses in digits.
        origins: The sites whose pages may use the server, as in the header Origin.
        routes: The routes of the page.
    """
    handlers: dict[Any, Any] = {Refusal: _refused, Busy: _busy, Exception: _failed}
    inner = application(
        [*api.routes(), *routes],
        hosts=hosts,
        body_limit=PAGE_BODY_LIMIT,
        handlers=handlers,
        lifespan=api.lifespan,
        origins=origins,
    )
    return _Noting(inner, api)
