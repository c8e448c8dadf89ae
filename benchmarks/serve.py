"""Compare `bpe serve` with llama.cpp's server (`llama-cpp-python[server]`): the same weights, requests and clients.

    python benchmarks/serve.py smollm2                            # a name, or a .gguf file, which both can read
    python benchmarks/serve.py smollm2 --clients 1,8,32 --prompt 32 --tokens 128 --json results.json
    python benchmarks/serve.py smollm2 --peer-python VENV/bin/python   # where llama-cpp-python is installed
    python benchmarks/serve.py smollm2 --soak 10 --clients 16      # only ours, for 10 minutes: memory and errors

How to read the table: "tokens/s" is the number of generated tokens of all clients together per second, from the first
request until the last answer; "first" is the median time from a request to its first token, in milliseconds, and
"slowest" the largest. "alone" is `complete` in one process with as many texts in one batch, without a server. Numbers
in brackets are ratios of ours to the peer's.

Each client sends its requests one after the other, over one connection, greedily and streamed, on this machine. Prompts
are different texts from corpora/, so that no server has read one before. All processes share the processor. Each
server is started once for all cells, and a first request is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from common import ROOT, add_kernel_option, choice, introduce, show

SERVERS = ("bpe serve", "llama.cpp")
# Starts llama.cpp's server without the weights that it packs for AMX: with them, llama-cpp-python 0.3.36 crashes.
LLAMA_CPP = """
import llama_cpp, llama_cpp.llama_cpp as api
def parameters(default=api.llama_model_default_params):
    made = default()
    made.use_extra_bufts = False
    return made
llama_cpp.llama_model_default_params = api.llama_model_default_params = parameters
from llama_cpp.server.__main__ import main
main()
"""
NAME = "model"
CONTEXT = 2048
START = 120  # seconds that a server has to answer


@dataclass
class Answers:
    """What the clients of one cell measured."""

    seconds: float = 0.0
    tokens: int = 0
    first: list[float] = field(default_factory=list)
    """Seconds to the first token of each request."""
    errors: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    fields: Mapping[str, Any]
    """Fields of its requests."""

    def memory(self) -> float:
        """Return the memory of its process in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6


# --- servers ---


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Return whether a server answers on a port of this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/v1/models")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False


@contextlib.contextmanager
def started(name: str, command: Sequence[str], port: int) -> Iterator[Server]:
    """Start a server, wait until it answers, and stop it in the end."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "2"})
        try:
            end = time.monotonic() + START
            while process.poll() is None and time.monotonic() < end:
                if answers(port):
                    break
                time.sleep(0.2)
            else:
                log.seek(0)
                raise SystemExit(f"{name} does not answer: {log.read().decode(errors='replace')[-2000:]}")
            fields = {"model": NAME} | ({"stream_options": {"include_usage": True}} if name == SERVERS[0] else {})
            yield Server(name, port, process, fields)
        finally:
            if process.poll() is not None:
                log.seek(0)
                print(
                    f"{name} ended with {process.returncode}: {log.read().decode(errors='replace')[-1000:]}",
                    file=sys.stderr,
                )
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def commands(args: argparse.Namespace, path: str) -> dict[str, tuple[list[str], int]]:
    """Return the command line and the port of each server."""
    ours, theirs = free_port(), free_port()
    threads, parallel = str(args.threads), str(max(args.clients))
    return {
        "bpe serve": (
            [
                sys.executable,
                "-m",
                "bpe",
                "serve",
                args.model,
                "--name",
                NAME,
                "--port",
                str(ours),
                "--parallel",
                parallel,
                "--quiet",
            ]
            + ["--context", str(CONTEXT), "--threads", threads, "--no-log", "--backend", args.backend],
            ours,
        ),
        "llama.cpp": (
            [args.peer_python, "-c", LLAMA_CPP, "--model", path, "--port", str(theirs), "--n_ctx", str(CONTEXT)]
            + ["--n_threads", threads, "--n_threads_batch", threads, "--interrupt_requests", "False"],
            theirs,
        ),
    }


# --- clients ---


async def ask(
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    prompt: str,
    tokens: int,
    answers: Answers,
    fields: Mapping[str, Any],
) -> None:
    """Send a request over a connection, and read the answer to its end."""
    reader, writer = streams
    body = json.dumps({"prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True} | fields).encode()
    begin = time.perf_counter()
    head = "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    status = await reader.readline()
    while await reader.readline() not in (b"\r\n", b""):
        pass
    events, first, finish, written = 0, 0.0, None, 0
    while size := int(await reader.readline() or b"0", 16):  # chunked
        data = await reader.readexactly(size)
        await reader.readexactly(2)
        for line in data.splitlines():
            if not line.startswith(b"data: ") or line == b"data: [DONE]":
                continue
            event = json.loads(line[6:])
            if "error" in event:
                answers.errors.append(str(event["error"])[:200])
                continue
            first = first or time.perf_counter() - begin
            events += 1
            if event["choices"]:
                finish = event["choices"][0]["finish_reason"] or finish
            elif "usage" in event:
                written = event["usage"]["completion_tokens"]
    await reader.readline()
    if b" 200 " not in status or finish not in ("length", "stop"):
        answers.errors.append(f"{status.decode().strip()}, finish {finish} after {events} events")
        return
    answers.first.append(first)
    answers.tokens += written or events  # llama.cpp's server sends an event for each token


async def client(server: Server, prompts: Iterator[str], tokens: int, answers: Answers, end: float | None) -> None:
    """Send the next prompts one after the other: all, or those that begin before a time."""
    streams = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 24)
    for prompt in prompts:
        try:
            await ask(streams, prompt, tokens, answers, server.fields)
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            answers.errors.append(repr(error))
            streams = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 24)
        if end is not None and time.monotonic() > end:
            break
    streams[1].close()


async def run_clients(
    server: Server, prompts: Iterator[str], clients: int, tokens: int, end: float | None = None
) -> Answers:
    """Let clients share the prompts."""
    answers = Answers()
    begin = time.perf_counter()
    await asyncio.gather(*(client(server, prompts, tokens, answers, end) for _ in range(clients)))
    answers.seconds = time.perf_counter() - begin
    return answers


# --- cells ---


class Texts:
    """Prompts of a given number of tokens, each another text."""

    def __init__(self, tokenizer: Any) -> None:
        text = "".join(path.read_text() for path in sorted((ROOT / "corpora").glob("*.txt")))
        self._ids, self._tokenizer, self._random = tokenizer.encode_ordinary(text), tokenizer, random.Random(1)

    def take(self, tokens: int, count: int | None = None) -> Iterator[str]:
        """Yield `count` prompts of about `tokens` tokens, or prompts without end."""
        while count is None or count > 0:
            count = None if count is None else count - 1
            start = self._random.randrange(len(self._ids) - tokens)
            some = self._ids[start : start + tokens]
            some[:3] = self._random.choices(self._ids, k=3)  # hardly any two prompts begin alike
            yield self._tokenizer.decode(some)


def alone(model: Any, tokenizer: Any, prompts: list[str], tokens: int) -> float:
    """Return the tokens per second of a batch in one process, prompts included."""
    from model import complete

    begin = time.perf_counter()
    texts = complete(model, tokenizer, prompts, tokens, temperature=0.0)
    return sum(len(text.ids) for text in texts) / (time.perf_counter() - begin)


def compare(args: argparse.Namespace, path: str, model: Any, tokenizer: Any) -> list[dict[str, Any]]:
    """Measure all cells and print their table."""
    texts, rows = Texts(tokenizer), []
    print(f"{'prompt':>6} {'clients':>7}  {'server':10} {'tokens/s':>16} {'first, ms':>16} {'slowest':>8}  errors")
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(started(name, command, port))
            for name, (command, port) in commands(args, path).items()
            if name in args.servers
        ]
        for server in servers:
            asyncio.run(run_clients(server, texts.take(32, 1), 1, 8))
        for size in args.prompt:
            for clients in args.clients:
                found: dict[str, list[Answers]] = {server.name: [] for server in servers}
                rates = []
                for repeat in range(args.repeat):
                    for server in servers:
                        show(f"{server.name}, {clients} clients, prompt of {size}, run {repeat + 1}")
                        count = clients * args.requests
                        answers = asyncio.run(run_clients(server, texts.take(size, count), clients, args.tokens))
                        found[server.name].append(answers)
                    rates.append(alone(model, tokenizer, [*texts.take(size, clients)], args.tokens))
                show()
                rows += report(size, clients, found, rates)
    return rows


def report(size: int, clients: int, found: dict[str, list[Answers]], rates: list[float]) -> list[dict[str, Any]]:
    """Print the lines of a cell and return them."""
    rows, ours = [], None
    for name, runs in found.items():
        rate = median(run.rate for run in runs)
        times = [time * 1000 for run in runs for time in run.first] or [float("nan")]
        first, slowest = median(times), max(times)
        errors = [error for run in runs for error in run.errors]
        ratios = ("", "") if ours is None else (f"[{ours[0] / rate:.2f}]", f"[{ours[1] / first:.2f}]")
        ours = ours or (rate, first)
        print(
            f"{size:6} {clients:7}  {name:10} {rate:9,.0f} {ratios[0]:>6} {first:9,.0f} {ratios[1]:>6} {slowest:8,.0f}"
            f"  {len(errors)} {errors[:1] or ''}"
        )
        rows.append({"prompt": size, "clients": clients, "server": name, "rate": rate, "first": first})
        rows[-1] |= {"slowest": slowest, "errors": errors, "rates": [run.rate for run in runs]}
    rate = median(rates)
    print(f"{size:6} {clients:7}  {'alone':10} {rate:9,.0f} {f'[{(ours or (0,))[0] / rate:.2f}]':>6}")
    rows.append({"prompt": size, "clients": clients, "server": "alone", "rate": rate, "rates": rates})
    return rows


def soak(args: argparse.Namespace, path: str, tokenizer: Any) -> list[dict[str, Any]]:
    """Keep clients busy for some minutes, and print memory and errors each half minute."""
    texts, rows = Texts(tokenizer), []
    command, port = commands(args, path)["bpe serve"]
    with started("bpe serve", command, port) as server:
        begin = time.monotonic()
        while time.monotonic() - begin < args.soak * 60:
            end = time.monotonic() + 30
            size = args.prompt[len(rows) % len(args.prompt)]
            answers = asyncio.run(run_clients(server, texts.take(size), max(args.clients), args.tokens, end))
            minutes = (time.monotonic() - begin) / 60
            print(
                f"{minutes:5.1f} min  prompt {size:5}  {answers.rate:6,.0f} tokens/s  {len(answers.first):4} answers  "
                f"{len(answers.errors)} errors  {server.memory():7,.1f} MB",
                flush=True,
            )
            rows.append({"minutes": minutes, "rate": answers.rate, "memory": server.memory(), "errors": answers.errors})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    parser.add_argument("model", help="a .gguf file, or a name of one")
    parser.add_argument("--clients", type=numbers, default=[1, 4, 8, 16, 32], metavar="N,...")
    parser.add_argument("--prompt", type=numbers, default=[32, 1024], metavar="N,...", help="tokens of the prompts")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of the answers")
    parser.add_argument("--requests", type=int, default=1, help="requests of each client in a run")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each cell, in turn; the table has medians")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backend", default="auto", help="of bpe serve")
    parser.add_argument("--servers", type=choice(SERVERS), default=[*SERVERS], help="which servers to measure")
    parser.add_argument("--peer-python", default=sys.executable, help="the Python that has llama-cpp-python[server]")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="measure only memory and errors of bpe serve")
    parser.add_argument("--json", metavar="FILE", help="write the results")
    add_kernel_option(parser)
    args = parser.parse_args()
    introduce({"bpe serve": "bpe-llama"})
    from bpe.locate import locate
    from model import load

    model, tokenizer = load(args.model, threads=args.threads, backend=args.backend)
    path = str(locate(args.model, "model"))
    rows = soak(args, path, tokenizer) if args.soak else compare(args, path, model, tokenizer)
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
