"""What `bpe chat` keeps between sessions."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from bpe import InputError
from model.commands import chat_files
from model.commands.chat_files import SavedDialogs, Saving, read_dialog, state_directory

DIALOG = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BPE_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def test_the_state_is_where_the_platform_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert state_directory() == tmp_path / "state"
    monkeypatch.setenv("BPE_STATE", "")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_directory() == tmp_path / "bpe-llama"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # invalid by the specification
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "Local"))
    expected = {
        "linux": ".local/state/bpe-llama",
        "darwin": "Library/Application Support/bpe-llama",
        "win32": "Local/bpe-llama",
    }
    for platform, directory in expected.items():
        monkeypatch.setattr(sys, "platform", platform)
        assert state_directory() == tmp_path / directory


def test_the_newest_dialog_of_a_model_is_found_again(state: Path) -> None:
    saved = SavedDialogs("org/name")
    assert saved.newest() is None
    assert not state.exists()
    first, second = saved.new_path(), saved.new_path()
    saved.save(first, DIALOG[:1])
    os.utime(first, (1, 1))
    saved.save(second, DIALOG)
    assert first != second
    assert SavedDialogs("org/name").newest() == second
    assert read_dialog(second) == DIALOG
    assert SavedDialogs("org/other").newest() is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_only_the_user_may_read_a_dialog(state: Path) -> None:
    saved = SavedDialogs("name")
    saved.save(path := saved.new_path(), DIALOG)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for directory in (path.parent, path.parent.parent, state):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_model_given_as_a_path_is_the_same_from_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "b").mkdir()
    monkeypatch.chdir(tmp_path)
    directory = SavedDialogs("runs/a").directory
    assert directory != SavedDialogs("runs/b").directory
    monkeypatch.chdir(tmp_path / "runs")
    assert SavedDialogs("a").directory == directory
    assert len(SavedDialogs("x" * 300).directory.name) < 100
    assert SavedDialogs("../\n:*?").directory.parent == directory.parent


def test_the_oldest_dialogs_are_deleted_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_files, "KEPT", 3)
    saved = SavedDialogs("name")
    paths = [saved.new_path() for _ in range(5)]
    for time, path in enumerate(paths):
        saved.save(path, DIALOG)
        os.utime(path, (time, time))
    saved.save(paths[-1], DIALOG)
    assert sorted(saved.directory.iterdir()) == paths[-3:]


def test_a_dialog_that_cannot_be_saved_is_said_once(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state.write_text("a file where a directory is needed")
    saving = Saving(SavedDialogs("name"))
    saving.save(DIALOG)
    saving.save(DIALOG)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bpe: the dialog is not saved: ") and str(state) in line


def test_nothing_is_saved_without_a_place(state: Path) -> None:
    Saving(None).save(DIALOG)
    assert not state.exists()


def test_a_dialog_is_read_in_both_forms_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "dialog.json"
    path.write_text(json.dumps({"messages": DIALOG}))
    assert read_dialog(path) == DIALOG
    for content in ("{", '{"a": 1}', '"text"', "\xff", "[" * 100_000):
        path.write_bytes(content.encode("latin-1"))
        with pytest.raises(InputError, match="dialog.json: "):
            read_dialog(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("null", 'expected a list of messages, or an object with "messages", found null'),
        ('{"dialog": []}', 'expected a list of messages, or an object with "messages", found an object without it'),
        ('[{"role": "user", "content": "Hi"}, {"role": "assistant"}]', "message 2 has no content"),
        ('{"messages": [{"role": "user", "content": null}]}', "message 1 has no content"),
    ],
)
def test_what_is_wrong_with_a_dialog_is_said(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "dialog.json"
    path.write_text(content)
    with pytest.raises(InputError, match=f"dialog.json: {words}"):
        read_dialog(path)
