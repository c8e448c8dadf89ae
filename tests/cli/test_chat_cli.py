"""`bpe chat`, in a pipe and at a terminal."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from bpe import Tokenizer
from bpe.cli import cli
from model import ModelConfig, Transformer, save
from support.references import BYTE_RANKS

SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def write_model(directory: Path, special: dict[str, int], context: int) -> None:
    """A model that answers without end: of the rows for "a" and for "b" one is positive, and all others are zero."""
    torch.manual_seed(1)
    tokenizer = Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=special)
    tokenizer.save(directory / "tokenizer.json")
    model = Transformer(
        ModelConfig(dim=16, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=24, vocab_size=264, max_seq_len=context)
    )
    with torch.no_grad():
        rows = model.output.weight
        rows[ord("b")] = -rows[ord("a")].clone()
        for id in {*range(len(rows))} - {ord("a"), ord("b")}:
            rows[id] = 0.0
    save(directory, model, directory / "tokenizer.json")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    write_model(directory, {name: 256 + number for number, name in enumerate(SPECIAL)}, context=100_000)
    return directory


def chat(model: Path, input: str | bytes, *options: str) -> Result:
    arguments = ["chat", str(model), "--temperature", "0", "--threads", "1", "--max-tokens", "5", *options]
    return CliRunner().invoke(cli, arguments, input=input)


def test_in_a_pipe_each_line_is_a_question_and_stdout_has_answers_only(model: Path) -> None:
    result = chat(model, "one\n\n  two \nthree")
    assert result.exit_code == 0, result.output
    answers = result.stdout.split("\n")
    assert [len(answer) for answer in answers] == [5, 0, 5, 0, 5, 0]
    assert {*"".join(answers)} <= {"a", "b"}
    assert result.stderr == ""


def test_a_pipe_may_be_empty_and_may_hold_any_bytes(model: Path) -> None:
    assert chat(model, "").stdout == ""
    assert len(chat(model, b"\xff<|eot_id|>\n").stdout) == 6


def test_the_answers_are_those_to_the_whole_dialog(model: Path) -> None:
    from bpe.chat import Llama3Chat
    from model import generate, load

    llm, tokenizer = load(model)
    messages = [{"role": "system", "content": "S"}]
    for question, answer in zip(["one", "two"], chat(model, "one\ntwo\n", "--system", "S").stdout.split(), strict=True):
        messages.append({"role": "user", "content": question})
        prompt = Llama3Chat(tokenizer).encode(messages)
        assert answer == "".join(generate(llm, tokenizer, prompt, 5, temperature=0.0))
        messages.append({"role": "assistant", "content": answer})


def test_the_models_own_template_is_used(model: Path, tmp_path: Path) -> None:
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('No chats today') }}")
    result = chat(tmp_path, "Hi")
    assert result.exit_code == 1
    assert "No chats today" in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_model_that_cannot_chat_is_told(tmp_path: Path) -> None:
    write_model(tmp_path, {}, context=100)
    result = chat(tmp_path, "Hi")
    assert result.exit_code == 1
    assert "no chat template" in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_question_beyond_the_context_is_told(tmp_path: Path) -> None:
    write_model(tmp_path, {name: 256 + number for number, name in enumerate(SPECIAL)}, context=100)
    result = chat(tmp_path, "Hi\n" + "x" * 99)
    assert result.exit_code == 1
    assert "the model's context holds 100" in result.stderr and len(result.stderr.splitlines()) == 1
    assert len(result.stdout.split()[0]) == 5


class Terminal:
    """A process at a pseudo-terminal."""

    def __init__(self, *arguments: str) -> None:
        import fcntl
        import pty
        import termios

        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bpe.cli", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**os.environ, "TERM": "dumb"},
        )
        os.close(slave)
        self._unread = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def read_until(self, pattern: str) -> str:
        """What is shown up to the end of a match of this regular expression."""
        while not (match := re.search(pattern, self._unread)):
            ready, _, _ = select.select([self._master], [], [], 60)
            assert ready, f"{pattern!r} is not shown after {self._unread[-500:]!r}"
            try:
                self._unread += os.read(self._master, 4096).decode()
            except OSError:  # the process has ended
                raise AssertionError(f"{pattern!r} is not shown before the end, {self._unread[-500:]!r}") from None
        shown, self._unread = self._unread[: match.end()], self._unread[match.end() :]
        return shown

    def ask(self, line: str, pattern: str) -> str:
        """Type a line at the prompt; see `read_until`."""
        self.read_until("> ")
        self.type(line + "\n")
        return self.read_until(pattern)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def terminal(model: Path) -> Iterator[Terminal]:
    pytest.importorskip("pty")
    terminal = Terminal(
        "chat", str(model), "--temperature", "0", "--threads", "1", "--max-tokens", "90000", "--system", "S"
    )
    yield terminal
    terminal.close()


def test_ctrl_c_stops_the_answer_and_keeps_the_chat(terminal: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "saved.json"
    terminal.ask("Hello", "[ab]{3}")
    terminal.type("\x03")
    terminal.ask(f"/save {path}", "\n")
    terminal.ask("one more", "[ab]{3}")
    terminal.type("\x03")
    terminal.read_until("> ")
    first = json.loads(path.read_text())
    assert [message["role"] for message in first] == ["system", "user", "assistant"]
    assert re.fullmatch("[ab]{3,}", first[2]["content"])
    terminal.type("\x03")  # with nothing to stop, the line is given up
    terminal.ask(f"/save {path}", "\n")
    terminal.read_until("> ")
    assert json.loads(path.read_text())[:4] == [*first, {"role": "user", "content": "one more"}]
    terminal.type("\x04")
    assert terminal.process.wait(60) == 0


def test_commands_at_a_terminal(terminal: Terminal, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    dialog = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    good.write_text(json.dumps(dialog))
    bad.write_text(json.dumps([*dialog, {"role": "nobody", "content": ""}]))
    terminal.ask(f"/load {good}", "2 messages")
    terminal.ask(f"/load {bad}", "bpe: .*bad.json: message 3: ")
    terminal.ask("/load", "bpe: /load: not a command; there are /system")
    terminal.ask(f"/load {tmp_path / 'none'}", "bpe: .*none: No such file")
    terminal.ask("/system Be brief.", "\n")
    terminal.ask(f"/save {good}", "\n")
    terminal.ask("/reset", "\n")
    terminal.ask(f"/save {bad}", "\n")
    terminal.ask("/exit", "\n")
    assert terminal.process.wait(60) == 0
    system = {"role": "system", "content": "Be brief."}
    assert json.loads(good.read_text()) == [system, *dialog]
    assert json.loads(bad.read_text()) == [system]
