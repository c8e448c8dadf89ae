"""A chat at a terminal: its commands, its settings, and what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bpe import InputError, Tokenizer
from bpe.chat import Llama3Chat
from model import ModelConfig, Transformer
from model.commands.chat_files import SavedDialogs, Saving
from model.commands.chat_talk import COMMANDS, COMPLETIONS, Talk, command_of, find_command
from model.generation.conversation import Conversation
from support.references import BYTE_RANKS

SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


class Script:
    """An editor whose lines are written before; an exception among them is raised."""

    def __init__(self, *lines: str | BaseException) -> None:
        self.lines = list(lines)
        self.defaults: list[str] = []

    def ask(self, default: str = "") -> str:
        self.defaults.append(default)
        line = self.lines.pop(0) if self.lines else EOFError()
        if isinstance(line, BaseException):
            raise line
        return line


@pytest.fixture
def conversation() -> Conversation:
    special = {name: 256 + number for number, name in enumerate(SPECIAL)}
    tokenizer = Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=special)
    torch.manual_seed(1)
    llm = Transformer(
        ModelConfig(dim=16, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=24, vocab_size=261, max_seq_len=256)
    )
    settings = {"temperature": 0.8, "seed": 1, "logit_bias": {97: 50.0, 98: 50.0}}  # answers of "a" and "b"
    return Conversation(llm, tokenizer, Llama3Chat(tokenizer), max_tokens=12, **settings)


Said = Callable[..., str]


@pytest.fixture
def said(
    conversation: Conversation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Said:
    """A function that talks with these lines, in one chat, and returns what is printed to stderr."""
    monkeypatch.setenv("BPE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "500")
    talk = Talk(conversation, Script(), Saving(SavedDialogs("model")), [("model", "tiny")])

    def say(*lines: str | BaseException) -> str:
        capsys.readouterr()
        talk.editor, talk.ends = Script(*lines), False
        talk.run()
        return capsys.readouterr().err

    return say


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("/set top_p 1", ("/set", "top_p 1")),
        ("/?", ("/?", "")),
        ("/", ("/help", "")),
        ("/system two\nlines ", ("/system", "two\nlines")),
        ("/foo bar", ("/foo", "bar")),  # which is then refused
        ("/QUIT", ("/quit", "")),
        (" exit\n", ("/exit", "")),
        ("quit", ("/exit", "")),
        ("quit smoking", None),
        ("/etc/hosts contains what?", None),
        ("/Users", None),
        ("/s3cret", None),
        ("// a comment", None),
        ("/ is a slash", None),
        (" /help is what?", None),
        ("Hello /help", None),
        ("", None),
    ],
)
def test_a_slash_and_a_word_at_the_beginning_are_a_command(text: str, command: tuple[str, str] | None) -> None:
    assert command_of(text) == command


def test_an_unknown_command_names_the_likeliest_and_how_to_send_it() -> None:
    with pytest.raises(InputError, match=r"/regne: .*did you mean /regen\? .*put a space in front"):
        find_command("/regne")
    with pytest.raises(InputError, match="/xyzzy: .*/help lists the commands"):
        find_command("/xyzzy")
    assert find_command("save") is find_command("/save")
    assert {name for command in COMMANDS for name in command.names} == COMPLETIONS.keys()


def test_messages_are_answered_and_the_dialog_is_saved(conversation: Conversation, said: Said, tmp_path: Path) -> None:
    said("one", '"""two\nlines"""', "", "  ", " /help")
    questions = [message["content"] for message in conversation.messages[::2]]
    assert questions == ["one", "two\nlines", "/help"]
    (path,) = tmp_path.rglob("*.json")
    assert json.loads(path.read_text()) == conversation.messages


@pytest.mark.parametrize("command", ["/quit", "/exit", "/bye", "exit"])
def test_a_command_ends_the_chat(conversation: Conversation, said: Said, command: str) -> None:
    said(command, "not sent")
    assert conversation.messages == []


def test_ctrl_c_at_an_empty_line_says_how_to_end(said: Said) -> None:
    assert "Ctrl-D or /bye ends the chat" in said(KeyboardInterrupt())
    assert "Ctrl-D or" not in said(KeyboardInterrupt("half a line"))


def test_help_lists_every_command_and_key_and_explains_one(said: Said) -> None:
    text = said("/help")
    for name in COMPLETIONS:
        assert name in text
    for key in ("Ctrl-R", "Alt-Enter", "Ctrl-X Ctrl-E", "Ctrl-D", '"""'):
        assert key in text
    assert said("/?") == said("/") == text
    one = said("/help set")
    assert "repetition_penalty" in one and "/save" not in one
    assert said("/help /undo").startswith("/undo")
    assert "did you mean /save?" in said("/help sav")


def test_regen_answers_again_with_another_seed(conversation: Conversation, said: Said) -> None:
    assert "no message to answer again" in said("/regen")
    said("one")
    first = conversation.messages[1]["content"]
    said("/regen")
    second = conversation.messages[1]["content"]
    said("/retry")
    assert len({first, second, conversation.messages[1]["content"]}) == 3
    assert len(conversation.messages) == 2
    assert "the answer is the same again" in said("/set temperature 0", "/regen")


def test_edit_sends_the_last_message_anew(conversation: Conversation, said: Said) -> None:
    assert "no message to edit" in said("/edit")
    said("one", "two", "/edit", "two!")
    assert [message["content"] for message in conversation.messages[::2]] == ["one", "two!"]
    before = list(conversation.messages)
    assert "unchanged" in said("/edit", KeyboardInterrupt())
    assert "holds 256" in said("/edit", "x" * 300)
    assert conversation.messages == before


def test_edit_begins_with_the_last_message(conversation: Conversation, said: Said) -> None:
    said("one")
    script = Script("/edit", "two")
    Talk(conversation, script, Saving(None), []).run()
    assert script.defaults == ["", "one", ""]


def test_undo_takes_back_the_last_turn(conversation: Conversation, said: Said, tmp_path: Path) -> None:
    assert "no message to take back" in said("/undo")
    assert "Taken back: two" in said("one", "two", "/undo")
    assert len(conversation.messages) == 2
    (path,) = tmp_path.rglob("*.json")
    assert json.loads(path.read_text()) == conversation.messages


def test_settings_change_and_are_shown(conversation: Conversation, said: Said) -> None:
    for line, answer in [
        ("/set temperature 0.5", "temperature is now 0.5"),
        ("/set temperature", "temperature is 0.5"),
        ("/set parameter top-p 0.7", "top_p is now 0.7"),  # as in ollama
        ("/set top_p none", "top_p is no longer set"),
        ("/set top_k=5", "top_k is now 5"),
        ("/set num_predict 7", "max_tokens is now 7"),
        ("/set seed 3", "seed is now 3"),
        ("/set seed default", "seed is now 1"),
        ("/set stop b", "stop is now 'b'"),
        ("/set stop none", "stop is no longer set"),
        ("/set prefill Well, ", "prefill is now Well,"),
        ("/set prefill none", "prefill is no longer set"),
        ("/set system Be brief.", "system is now Be brief."),
        ("/set repetition_penalty 1.2", "repetition_penalty is now 1.2"),
        ("/set temperature default", "temperature is now 0.8"),
    ]:
        assert said(line).splitlines()[0] == answer
    assert conversation.settings["max_tokens"] == 7
    assert conversation.system == "Be brief."
    said("one")
    assert len(conversation.messages[-1]["content"]) == 7
    for text in (said("/set"), said("/show")):
        assert "repetition_penalty" in text and "1.2" in text and "Be brief." in text
    said("/set temperature 0")
    assert "no effect while temperature is 0" in said("/set top_k 3")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/set temprature 1", "did you mean temperature?"),
        ("/set xyz 1", "the settings are system, temperature"),
        ("/set temperature warm", "'warm' is not a number"),
        ("/set top_k 1.5", "'1.5' is not a whole number"),
        ("/set top_p 2", "top_p is 2.0; it must be above 0 and at most 1"),
        ("/set temperature -1", "temperature is -1.0; it must be 0"),
        ("/set temperature nan", "temperature is nan"),
        ("/set max_tokens 0", "max_tokens is 0; it must be at least 1"),
        ("/set max_tokens none", "always has a value"),
        ("/set repetition_penalty none", "1.0 has no effect"),
        ("/undo it", "/undo takes no argument; to send this as a message, put a space in front"),
        ("/save", "write /save FILE"),
        ("/load /no/such/file", "/no/such/file: No such file"),
        ("/read /no/such/file", "/no/such/file: No such file"),
        ("/hepl", "did you mean /help?"),
        ("/help sett", "/sett: there is no such command; did you mean /set?"),
    ],
)
def test_wrong_commands_are_said_and_change_nothing(
    conversation: Conversation, said: Said, line: str, words: str
) -> None:
    before = dict(conversation.settings)
    (message,) = said(line).strip().splitlines()
    assert message.startswith("bpe: ") and words in message
    assert conversation.settings == before
    assert conversation.messages == []


def test_show_says_what_the_model_reads(conversation: Conversation, said: Said) -> None:
    text = said("/show")
    assert "tiny" in text and "0 of 256 tokens" in text and "after the next answer" in text
    text = said("one", "/show")
    assert f"{conversation.used} of 256 tokens" in text
    assert "2 messages" in text and "tokens per second" in text
    assert "oldest" not in text
    text = said("x" * 100, "y" * 90, "/show")
    assert f"the oldest {conversation.forgotten} are forgotten" in text


def test_the_system_message_is_set_shown_and_removed(conversation: Conversation, said: Said) -> None:
    assert "There is no system message" in said("/system")
    assert "system is now Two lines" in said("/system Two lines")
    assert "system is Two lines" in said("/system")
    said("one", "/reset")
    assert conversation.messages == [{"role": "system", "content": "Two lines"}]
    said('/system """a\nb"""')
    assert conversation.system == "a\nb"
    said("/system none")
    assert conversation.messages == []


def test_reset_begins_another_dialog_and_keeps_the_saved_one(
    conversation: Conversation, said: Said, tmp_path: Path
) -> None:
    said("one")
    (first,) = tmp_path.rglob("*.json")
    assert str(first) in said("/clear", "two")
    assert len(conversation.messages) == 2
    assert len(list(tmp_path.rglob("*.json"))) == 2
    assert json.loads(first.read_text())[0]["content"] == "one"


def test_a_dialog_is_written_and_loaded(conversation: Conversation, said: Said, tmp_path: Path) -> None:
    path = tmp_path / "a file.json"
    assert "2 messages saved" in said("one", f"/save {path}")
    before = list(conversation.messages)
    assert "2 messages loaded" in said("/reset", f"/load {path}")
    assert conversation.messages == before
    path.write_text(json.dumps([{"role": "nobody", "content": ""}]))
    assert "a file.json: message 1: " in said(f"/load {path}")
    assert conversation.messages == before


def test_a_file_follows_the_next_message_only(conversation: Conversation, said: Said, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"\xef\xbb\xbfline 1\r\nline 2\n")
    assert "13 characters will follow the next message" in said(f"/read {path}")
    said("Sum this:", "And?")
    assert [message["content"] for message in conversation.messages[::2]] == ["Sum this:\n\nline 1\nline 2", "And?"]
    path.write_bytes(b"\xff")
    assert "byte 0 is not valid UTF-8" in said(f"/read {path}")


def test_a_message_that_does_not_fit_is_refused_with_numbers(conversation: Conversation, said: Said) -> None:
    said("one")
    before = list(conversation.messages)
    assert "the message has 323 tokens, but the model's context holds 256" in said("x" * 300)
    assert conversation.messages == before


def test_a_file_that_does_not_fit_leaves_room_for_later_messages(
    conversation: Conversation, said: Said, tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("x" * 2000)
    assert f"with {path}" in said(f"/read {path}", "/show").split("next message ")[-1]
    text = said("Sum this:")
    assert "the message has 2,034 tokens" in text and f"it no longer includes {path}, which /read reads" in text
    assert "next message" not in said("/show")
    said("short")
    assert conversation.messages[0]["content"] == "short"


def test_more_than_the_context_is_never_used(conversation: Conversation, said: Said) -> None:
    said("/set max_tokens 1000", "x" * 190)
    assert conversation.is_full
    assert "256 of 256 tokens used" in said("/show")


def test_a_full_context_is_said_once_for_each_dialog(conversation: Conversation, said: Said) -> None:
    text = said(*["question"] * 8)
    assert text.count("no longer reads the oldest messages") == 1
    assert said("/reset", *["question"] * 8).count("no longer reads the oldest messages") == 1
    text = said("/reset", "/set max_tokens 1000", "x" * 190)
    assert "the answer ends here because the model's context of 256 tokens is full" in text
    assert "the answer ends after 3 tokens" in said("/reset", "/set max_tokens 3", "one")


def test_an_interrupted_answer_is_kept_and_the_chat_continues(
    conversation: Conversation, said: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    forward = conversation._model.forward
    calls: list[None] = []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(*arguments, **options)

    monkeypatch.setattr(conversation._model, "forward", interrupted)
    assert said("one") == "\n(stopped)\n\n"
    assert len(conversation.messages[1]["content"]) == 3
    del calls[3:]
    (tmp_path / "notes.txt").write_text("notes")
    assert "the message is not part of the dialog" in said(f"/read {tmp_path / 'notes.txt'}", "two")
    assert len(conversation.messages) == 2
    said("three", "four")
    questions = [message["content"] for message in conversation.messages[::2]]
    assert questions == ["one", "three\n\nnotes", "four"]


def test_text_of_a_file_cannot_command_the_terminal(said: Said, tmp_path: Path) -> None:
    path = tmp_path / "dialog.json"
    path.write_text(json.dumps([{"role": "user", "content": "\x1b[2J"}, {"role": "assistant", "content": "A"}]))
    assert "\x1b" not in said(f"/load {path}", "/undo", "/system \x1b[2J", "/show")
