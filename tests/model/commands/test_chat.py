"""`bpe chat`, in a pipe and in a terminal."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import Result

from bpe import Tokenizer
from model import ModelConfig, Transformer, save
from support.command_line import BPE, bpe, fails_with
from support.references import BYTE_RANKS

SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def write_model(directory: Path, special: dict[str, int], context: int) -> None:
    """Write a model whose answers never end: its logits are zero, except for "a" and "b", of which one is positive."""
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
    return bpe("chat", model, "--temperature", "0", "--threads", "1", "--max-tokens", "5", *options, input=input)


def test_in_a_pipe_each_line_is_a_question_and_only_answers_go_to_stdout(model: Path) -> None:
    result = chat(model, "one\n\n  two \nthree")
    assert result.exit_code == 0, result.output
    answers = result.stdout.split("\n")
    assert [len(answer) for answer in answers] == [5, 0, 5, 0, 5, 0]
    assert {*"".join(answers)} <= {"a", "b"}
    assert result.stderr == ""


def test_a_pipe_may_be_empty_or_hold_any_bytes(model: Path) -> None:
    assert chat(model, "").stdout == ""
    assert len(chat(model, b"\xff<|eot_id|>\n").stdout) == 6


def test_each_answer_depends_on_the_whole_dialog(model: Path) -> None:
    from bpe.chat import Llama3Chat
    from model import generate, load

    llm, tokenizer = load(model)
    messages = [{"role": "system", "content": "S"}]
    for question, answer in zip(["one", "two"], chat(model, "one\ntwo\n", "--system", "S").stdout.split(), strict=True):
        messages.append({"role": "user", "content": question})
        prompt = Llama3Chat(tokenizer).encode(messages)
        assert answer == "".join(generate(llm, tokenizer, prompt, 5, temperature=0.0))
        messages.append({"role": "assistant", "content": answer})


def test_the_chat_template_of_the_model_is_used(model: Path, tmp_path: Path) -> None:
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('No chats today') }}")
    fails_with(chat(tmp_path, "Hi"), 1, "No chats today")


def write_templates(model: Path, directory: Path, templates: dict[str, str]) -> None:
    """Copy a model and give it chat templates."""
    for file in model.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    config = {"chat_template": [{"name": name, "template": text} for name, text in templates.items()]}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def test_a_chat_template_is_chosen_by_name_and_gets_variables(model: Path, tmp_path: Path) -> None:
    write_templates(
        model, tmp_path, {"default": "{{ raise_exception('A') }}", "b": "{{ raise_exception(x | string) }}"}
    )
    fails_with(chat(tmp_path, "Hi"), 1, "or fails: A")
    fails_with(chat(tmp_path, "Hi", "--template", "b", "--template-arg", "x=[1, true]"), 1, "or fails: [1, True]")
    fails_with(chat(tmp_path, "Hi", "--template", "b", "--template-arg", "x=26 Jul"), 1, "or fails: 26 Jul")
    fails_with(chat(tmp_path, "Hi", "--template", "c"), 1, "no chat template 'c'; there are b, default")
    fails_with(chat(tmp_path, "Hi", "--template-arg", "x=1"), 1, "not read the variable 'x'; it reads no variables")
    fails_with(chat(tmp_path, "Hi", "--template-arg", "x"), 2, "--template-arg x: write NAME=VALUE")
    fails_with(chat(model, "Hi", "--template", "b"), 1, "no named templates and no variables")


def test_an_answer_continues_the_prefilled_text(model: Path) -> None:
    from bpe.chat import Llama3Chat
    from model import generate, load

    llm, tokenizer = load(model)
    prompt = Llama3Chat(tokenizer).encode([{"role": "user", "content": "one"}]) + tokenizer.encode_ordinary("Well, ")
    answer = "Well, " + "".join(generate(llm, tokenizer, prompt, 5, temperature=0.0))
    result = chat(model, "one\ntwo\n", "--prefill", "Well, ")
    answers = result.stdout.split("\n\n")
    assert answers[0] == answer
    messages = [
        {"role": "user", "content": "one"}, {"role": "assistant", "content": answer}, {"role": "user", "content": "two"}
    ]  # fmt: skip
    prompt = Llama3Chat(tokenizer).encode(messages) + tokenizer.encode_ordinary("Well, ")
    assert answers[1] == "Well, " + "".join(generate(llm, tokenizer, prompt, 5, temperature=0.0)) + "\n"


def test_a_model_without_a_chat_format_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path, {}, context=100)
    fails_with(chat(tmp_path, "Hi"), 1, "no chat template", "`bpe generate ", "`bpe finetune`")


def test_a_question_longer_than_the_context_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path, {name: 256 + number for number, name in enumerate(SPECIAL)}, context=100)
    result = chat(tmp_path, "Hi\n" + "x" * 99)
    fails_with(result, 1, "the model's context holds 100", prints=True)
    assert len(result.stdout.split()[0]) == 5


class Terminal:
    """A process whose stdin, stdout and stderr are a pseudo-terminal."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        import fcntl
        import pty
        import termios

        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*BPE, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**os.environ, "TERM": "dumb", "COLUMNS": "500", **environment},
        )
        os.close(slave)
        self._unread = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def read_until(self, pattern: str) -> str:
        """Return the output up to the end of a match of this regular expression."""
        while not (match := re.search(pattern, self._unread)):
            ready, _, _ = select.select([self._master], [], [], 60)
            assert ready, f"{pattern!r} is not shown after {self._unread[-500:]!r}"
            try:
                self._unread += os.read(self._master, 4096).decode()
            except OSError:  # the process has ended
                raise AssertionError(f"{pattern!r} is not shown before the end, {self._unread[-500:]!r}") from None
        shown, self._unread = self._unread[: match.end()], self._unread[match.end() :]
        return shown

    def interrupt(self) -> None:
        """Press Ctrl-C until a new prompt appears. One that arrives before readline waits for input may be lost."""
        for _ in range(60):
            self.type("\x03")
            if select.select([self._master], [], [], 1)[0]:
                break
        self.read_until("> ")

    def echoes(self) -> bool:
        """Return whether the terminal shows what is typed."""
        import termios

        return bool(termios.tcgetattr(self._master)[3] & termios.ECHO)

    def echo(self) -> None:
        """Make the terminal show what is typed."""
        import termios

        settings = termios.tcgetattr(self._master)
        settings[3] |= termios.ECHO
        termios.tcsetattr(self._master, termios.TCSANOW, settings)

    def ask(self, line: str, pattern: str) -> str:
        """Type a line at the prompt, and return the output up to a match."""
        self.read_until("> ")
        self.type(line + "\r")
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
    terminal.type("not sent")
    terminal.read_until("not sent")  # its echo: readline waits for input, where it notices Ctrl-C
    terminal.interrupt()  # without an answer to stop, Ctrl-C discards the line
    terminal.type(f"/save {path}\r")
    terminal.read_until("\n")
    terminal.read_until("> ")
    assert json.loads(path.read_text())[:4] == [*first, {"role": "user", "content": "one more"}]
    terminal.type("\x04")
    assert terminal.process.wait(60) == 0


def test_what_is_typed_stays_hidden_after_a_return_to_the_foreground(terminal: Terminal) -> None:
    terminal.ask("Hello", "[ab]{3}")
    assert not terminal.echoes()
    terminal.echo()  # as a shell does between Ctrl-Z and fg
    os.kill(terminal.process.pid, signal.SIGCONT)
    for _ in range(1000):
        terminal.read_until("[ab]{3}")
        if not terminal.echoes():
            break
    assert not terminal.echoes()


def test_chat_commands_save_load_and_reset_the_dialog(terminal: Terminal, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    dialog = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    good.write_text(json.dumps(dialog))
    bad.write_text(json.dumps([*dialog, {"role": "nobody", "content": ""}]))
    terminal.ask(f"/load {good}", "2 messages")
    terminal.ask(f"/load {bad}", "bpe: .*bad.json: message 3: ")
    terminal.ask("/load", "bpe: /load: the argument is missing; write /load FILE")
    terminal.ask("/laod x", "bpe: /laod: there is no such command; did you mean /load?")
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


def test_pasted_lines_are_one_message_and_earlier_sessions_are_in_the_history(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("pty")
    arguments = ("chat", str(model), "--temperature", "0", "--threads", "1", "--max-tokens", "5")
    environment = {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "BPE_STATE": str(tmp_path)}
    first = Terminal(*arguments, **environment)
    second = None
    try:
        first.read_until("\\?2004h")  # before the model is loaded, where nothing is shown yet
        first.type("\x1b[200~one\rtwo\x1b[201~\rtyped ahead\r")
        first.read_until("Type a message")
        first.read_until("typed ahead(.|\n)*[ab]{5}")
        first.type("\x04")
        first.read_until("\\?2004l")
        assert first.process.wait(60) == 0
        second = Terminal(*arguments, "-c", **environment)
        second.read_until("Continuing (.|\n)*> one\r\n  two\r\n[ab]{5}\r\n(.|\n)*> typed ahead")
        second.read_until("Send a message")
        second.type("\x1b[A\x1b[A!\r")  # the last message but one; the key End is not needed
        second.read_until("two!(.|\n)*[ab]{5}")
        second.type("\x04")
        assert second.process.wait(60) == 0
    finally:
        for terminal in filter(None, (first, second)):
            terminal.close()
    (saved,) = tmp_path.rglob("*.json")
    assert [message["content"] for message in json.loads(saved.read_text())[::2]] == [
        "one\ntwo",
        "typed ahead",
        "one\ntwo!",
    ]


def test_the_first_lines_name_the_model_and_quiet_leaves_them_out(model: Path) -> None:
    pytest.importorskip("pty")
    first = r"\(\S+ k, context 100,000\) on the CPU, .*\r\nType a message"
    for options in ((), ("-q",)):
        terminal = Terminal("chat", str(model), "--backend", "native", *options)
        try:
            shown = terminal.read_until("> ")
            assert bool(re.search(first, shown)) == ("Type a message" in shown) == (not options), shown
            terminal.type("\x04")
            assert terminal.process.wait(60) == 0
        finally:
            terminal.close()


def test_a_question_is_answered_and_the_dialog_continued_from_the_command_line(model: Path, tmp_path: Path) -> None:
    from bpe.chat import Llama3Chat
    from model import generate, load

    llm, tokenizer = load(model)
    copy = tmp_path / "model"
    copy.mkdir()
    for file in model.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (tmp_path / "notes.txt").write_text("line 1\nline 2\n")
    messages: list[dict[str, str]] = [{"role": "system", "content": "S"}]
    for question, options in [
        ("one", ["-p", "one", "--system", "S"]),
        ("two", ["-c", "-p", "two"]),
        ("Sum:\n\nline 1\nline 2", ["--continue", "--no-save", "-p", "Sum:", str(tmp_path / "notes.txt")]),
        ("Sum:\n\nstdin", ["-c", "--no-save", "--text", "Sum:", "-"]),  # what was not saved is not continued
    ]:
        result = chat(copy, "stdin\n", *options)
        assert result.exit_code == 0, result.output
        asked = [*messages, {"role": "user", "content": question}]
        answer = "".join(generate(llm, tokenizer, Llama3Chat(tokenizer).encode(asked), 5, temperature=0.0))
        assert result.stdout == f"{answer}\n"
        assert result.stderr == ""
        if "--no-save" not in options:
            messages = [*asked, {"role": "assistant", "content": answer}]
    assert chat(copy, "", "-c", "-p", "one", "-p", "two").stdout.count("\n") == 3


def test_piped_text_beside_a_question_is_not_ignored_in_silence(model: Path) -> None:
    pytest.importorskip("fcntl")
    command = [*BPE, "chat", str(model), "-p", "one", "--max-tokens", "5", "--temperature", "0", "--no-save"]
    for options, words in (([], "stdin is not read; to put it after the question, add -"), (["-"], "")):
        result = subprocess.run([*command, *options], input="text", capture_output=True, text=True)
        assert len(result.stdout) == 6, result.stderr
        assert words in result.stderr if words else not result.stderr
    assert subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).stderr == b""


def test_continuing_without_a_dialog_begins_one_and_says_so(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BPE_STATE", str(tmp_path))
    result = chat(model, "", "-c", "-p", "one")
    assert result.exit_code == 0
    assert "there is no dialog to continue; this one is the first" in result.stderr
    (saved,) = tmp_path.rglob("*.json")
    for content in ("{", '[{"role": 5, "content": "Hi"}]', '[{"role": "user"}]'):
        saved.write_text(content)
        fails_with(chat(model, "", "-c", "-p", "one"), 1, saved.name, "delete the file, or chat without --continue")


def test_files_hold_a_question_in_each_line(model: Path, tmp_path: Path) -> None:
    (tmp_path / "questions.txt").write_bytes(b"\xef\xbb\xbfone\r\n\ntwo\n")
    result = chat(model, "three\n", str(tmp_path / "questions.txt"), "-")
    lines = result.stdout.split("\n")
    assert [len(line) for line in lines] == [5, 0, 5, 0, 5, 0]
    assert lines == chat(model, "one\ntwo\nthree\n").stdout.split("\n")


def test_wrong_questions_are_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    fails_with(chat(nowhere, "", "How", "are you?"), 1, "no such file; did you mean -p 'How are you?'?")
    fails_with(chat(nowhere, "", "-p", " "), 2, "-p: the question is empty")
    fails_with(chat(nowhere, "", "-p", "a", "-p", "b", __file__), 2, "files follow one question")
    fails_with(chat(nowhere, "", "-", "-"), 2, "can be read only once")
    fails_with(chat(nowhere, "", str(tmp_path)), 1, "a directory")


def test_sampling_settings_that_generate_has_are_options_of_chat(model: Path) -> None:
    plain = chat(model, "one\n").stdout.strip()
    assert chat(model, "one\n", "--stop", plain[2]).stdout.strip() == plain.partition(plain[2])[0]
    for penalty in ("--frequency-penalty", "--presence-penalty"):
        assert len(chat(model, "one\n", penalty, "100").stdout.strip()) == 5
    fails_with(chat(model, "one\n", "--repetition-penalty", "0"), 1, "repetition_penalty is 0.0")
    fails_with(chat(model, "one\n", "--min-p", "0.5"), 2, "--min-p has no effect with --temperature 0")


def test_a_full_context_is_said_once_and_the_chat_continues(tmp_path: Path) -> None:
    write_model(tmp_path, {name: 256 + number for number, name in enumerate(SPECIAL)}, context=100)
    result = chat(tmp_path, "one\ntwo\nthree\nfour\n")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.split()) == 4
    (line,) = result.stderr.splitlines()
    assert "the model no longer reads the oldest messages" in line
    result = bpe("chat", tmp_path, "--temperature", "0", "-p", "x" * 50)
    assert result.stderr == "bpe: the answer ends here because the model's context of 100 tokens is full\n"
    result = chat(tmp_path, "one\ntwo\nthree\nfour\n", "--no-forget")
    fails_with(result, 1, "begin a new dialog, or shorten the message", prints=True)


def test_a_native_chat_in_a_pipe_needs_neither_torch_nor_an_editor(smollm2_file: Path) -> None:
    program = (
        "import sys; from click.testing import CliRunner; from bpe.cli import cli;"
        f"command = ['chat', {str(smollm2_file)!r}, '-p', 'Hi', '--max-tokens', '1', '--no-save'];"
        "result = CliRunner().invoke(cli, command);"
        "print(result.exit_code, [name for name in ('torch', 'prompt_toolkit', 'wcwidth') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout == "0 []\n", result.stderr


def test_a_model_that_was_never_trained_to_chat_is_named_as_such(model: Path, tmp_path: Path) -> None:
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    record = tmp_path / "run.json"
    for kind in ("pretraining", "continued pretraining"):
        record.write_text(json.dumps({"settings": {"kind": kind}}))
        result = chat(tmp_path, "one\n")
        assert len(result.stdout) == 6
        (line,) = result.stderr.splitlines()
        for words in ("never trained to chat", "texts only", "`bpe finetune`", "`bpe generate`"):
            assert words in line
    for content in ('{"settings": {"kind": "fine-tuning"}}', '{"settings": 1}'):
        record.write_text(content)
        assert chat(tmp_path, "one\n").stderr == ""
    record.write_text('{"settings": {"kind": "pretraining"}}')
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert chat(tmp_path, "one\n").stderr == ""


def test_a_published_model_without_a_template_was_never_trained_to_chat(model: Path, tmp_path: Path) -> None:
    for name in ("base", "base.gguf"):
        options = ["--format", "huggingface"] if name == "base" else []
        assert bpe("convert", model, tmp_path / name, *options).exit_code == 0
        result = chat(tmp_path / name, "one\n")
        assert len(result.stdout) == 6, result.output
        assert "never trained to chat (its files have no chat template)" in result.stderr
