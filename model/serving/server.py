"""Running the server: connections that must not dawdle, and an end that lets requests finish."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from bpe.playground.listening import Server
from model.serving.app import Api

HEADER_SECONDS = 20.0
"""Seconds in which the head of a request must arrive."""
IDLE_SECONDS = 75
"""Seconds that a connection stays open between requests."""
_SENDING = 5  # seconds that responses have to be sent, once all texts have ended
_MOST_FILES = 65536
_LARGEST_HEAD = 64 << 10


class Protocol(H11Protocol):
    """uvicorn's HTTP, which closes connections whose request does not arrive (slow loris)."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        cycle = self.cycle
        super().data_received(data)
        if self.cycle is not cycle:  # the head is complete
            self._stop_waiting()
        elif self._late is None and (cycle is None or cycle.response_complete):
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._late = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class ServeServer(Server):
    """uvicorn's server, which finishes requests when it is to stop and refuses new ones meanwhile.

    The first SIGTERM or SIGINT begins the end, the second ends at once.

    Args:
        config: uvicorn's settings.
        started: Called when the server answers.
        api: The endpoints.
        deadline: Seconds that running requests have to finish.
        say: Prints a line.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        started: Callable[[], object],
        api: Api,
        deadline: float,
        say: Callable[[str], object],
    ) -> None:
        super().__init__(config, started)
        self._api, self._deadline, self._say = api, deadline, say
        self.is_forced = False
        """Whether a second signal ended the server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals while the server runs."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        taken = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in taken}
        for number in taken:
            signal.signal(number, lambda number, frame: loop.call_soon_threadsafe(self.stop))
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Begin to stop; a second time, stop at once. Only in the thread of the event loop."""
        if self._api.is_stopping:
            self.is_forced = self.force_exit = self.should_exit = True
            return
        self._api.is_stopping = True
        running = self._api.running
        if running:
            self._say(
                f"bpe: stopping when {running} request{'s' * (running != 1)} finished, or after {self._deadline:g} s; "
                "Ctrl-C ends at once"
            )
        loop = asyncio.get_running_loop()

        def finish() -> None:
            self._api.service.scheduler.stop(self._deadline)
            with contextlib.suppress(RuntimeError):  # the loop is closed after a second signal
                loop.call_soon_threadsafe(self._exit)

        threading.Thread(target=finish, name="stopping", daemon=True).start()

    def _exit(self) -> None:
        self.should_exit = True


def serve_until_stopped(
    app: ASGIApp,
    api: Api,
    listening: socket.socket,
    *,
    deadline: float,
    started: Callable[[], object] = lambda: None,
    say: Callable[[str], object] = lambda line: None,
) -> None:
    """Serve an application until a signal ends it.

    Args:
        app: The application.
        api: Its endpoints.
        listening: The socket.
        deadline: Seconds that running requests have to finish.
        started: Called when the server answers.
        say: Prints a line.

    Raises:
        KeyboardInterrupt: After a second signal.
    """
    _allow_many_connections()
    server = new_serve_server(app, api, deadline=deadline, started=started, say=say)
    try:
        server.run([listening])
    finally:
        listening.close()
    if server.is_forced:
        raise KeyboardInterrupt


def _allow_many_connections() -> None:
    """Raise the limit of open files, which is often 1,024, as far as this process may."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # no such limit on Windows
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _MOST_FILES if most == resource.RLIM_INFINITY else min(most, _MOST_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def new_serve_server(
    app: ASGIApp,
    api: Api,
    *,
    deadline: float,
    started: Callable[[], object] = lambda: None,
    say: Callable[[str], object] = lambda line: None,
) -> ServeServer:
    """Return the server, whose method `run` takes a list of sockets; see `serve_until_stopped` for the arguments."""
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        loop="asyncio",
        access_log=False,
        log_level="critical",  # clients that send no HTTP would fill the log
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=_SENDING,
        h11_max_incomplete_event_size=_LARGEST_HEAD,
        backlog=1024,
    )
    return ServeServer(config, started, api, deadline, say)
