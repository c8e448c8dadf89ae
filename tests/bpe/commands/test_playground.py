"""`bpe playground`: its address, what it refuses, and how it ends."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bpe.errors import InputError
from bpe.playground.listening import address_of, listen
from support.command_line import BPE, ROOT, bpe, fails_with


@pytest.mark.skipif(sys.platform == "win32", reason="processes get no SIGINT or SIGTERM on Windows")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_it_prints_its_address_and_answers_until_it_is_stopped(my_json: Path, number: int, status: int) -> None:
    command = [*BPE, "playground", str(my_json), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None and process.stderr is not None
        address = urlsplit(process.stdout.readline().strip())
        assert address.hostname == "127.0.0.1" and address.port
        connection = http.client.HTTPConnection(address.hostname, address.port)
        connection.request("POST", f"/api/tokens/encode?tokenizer={my_json}", body=b"hello")
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("server")) == (200, None)
        assert len(answer.read()) > 4
        process.send_signal(number)
        assert process.wait(30) == status
        said = process.stderr.read()
        assert "Traceback" not in said and "Ctrl-C ends" in said
        assert process.stdout.read() == ""


def test_a_port_in_use_is_one_line(my_json: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        fails_with(bpe("playground", my_json, "--port", port), 1, f"--port {port}", "another program", "choose another")


def test_wrong_arguments_are_one_line() -> None:
    fails_with(bpe("playground", "nothing-here", "--port", "0"), 1, "nothing-here")
    fails_with(bpe("playground", "--port", "70000"), 2, "--port")
    fails_with(bpe("playground", "--host", "no such host", "--port", "0"), 1, "--host no such host", "127.0.0.1")
    fails_with(bpe("playground", "--host", "203.0.113.7", "--port", "0"), 1, "--host 203.0.113.7", "127.0.0.1")


def test_addresses_are_written_for_a_browser_on_this_machine() -> None:
    for host, shown in (("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "localhost"), ("localhost", "127.0.0.1")):
        try:
            listening = listen(host, 0)
        except InputError:
            continue
        with listening:
            port = listening.getsockname()[1]
            assert address_of(listening) in (f"http://{shown}:{port}/", f"http://[::1]:{port}/")
    if socket.has_ipv6:
        try:
            listening = listen("::1", 0)
        except InputError:
            return
        with listening:
            assert address_of(listening).startswith("http://[::1]:")
