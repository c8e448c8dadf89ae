"""Listening on a port, and running a server until it is stopped."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from bpe.errors import InputError


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a port.

    Args:
        host: The address, or a name for it.
        port: The port; 0 chooses a free one.

    Raises:
        InputError: When the address is unknown, or the port is in use or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a name"
        raise InputError(f"--host {host}: {reason}; use 127.0.0.1, or an address of this machine") from None
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise InputError(_reason(error, host, port)) from None
    return listening


def _reason(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"--port {port}: another program uses the port; choose another one, or 0 for any free port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"--port {port}: {error.strerror}; use a port above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host}: not an address of this machine; use 127.0.0.1"
    return f"{host}:{port}: {error.strerror}; choose another --host or --port"


def address_of(listening: socket.socket) -> str:
    """Return the address of the page, for a browser on this machine."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class Server(uvicorn.Server):
    """uvicorn's server, which calls a function when it answers."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], object]) -> None:
        super().__init__(config)
        self._on_start = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start()


def new_server(
    app: ASGIApp, *, started: Callable[[], object] = lambda: None, deadline: int = 3, log_level: str = "warning"
) -> Server:
    """Return a server, whose method `run` takes a list of sockets.

    Args:
        app: The application.
        started: Called when the server answers.
        deadline: Seconds that running requests have to finish, once the server is to stop.
        log_level: Messages below this level are not printed.
    """
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level=log_level,
        server_header=False,
        timeout_graceful_shutdown=deadline,
        ws="none",
    )
    return Server(config, started)


def run_until_stopped(server: Server, listening: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM. After SIGTERM, the function returns.

    Args:
        server: The server.
        listening: The socket; see `listen`.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
    """
    # uvicorn raises the signal again once it has stopped, which would end the process as if it had been killed.
    previous = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        server.run([listening])
    finally:
        signal.signal(signal.SIGTERM, previous)
        listening.close()
