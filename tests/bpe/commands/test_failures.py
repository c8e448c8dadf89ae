"""How commands fail: an error is one line, and some errors come with a remedy."""

from __future__ import annotations

import errno

import pytest

from bpe.cli import cli
from bpe.commands.failures import in_one_line


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "a.txt"), "a.txt: No such file"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out.bin"),
            "out.bin: No space left on device; free some space and run the command again",
        ),
        (MemoryError(), "not enough memory; use shorter or fewer texts at once, or weights of a smaller dtype"),
        (ModuleNotFoundError(name="torch"), "this needs the package torch: pip install 'bpe-llama[model]'"),
        (ModuleNotFoundError(name="tiktoken"), "this needs the package tiktoken: pip install 'bpe-llama[verify]'"),
        (RuntimeError("two\nlines"), "RuntimeError: two lines (run bpe --debug ... for the traceback)"),
    ],
)
def test_an_error_is_described_in_one_line(error: Exception, message: str) -> None:
    assert in_one_line(error) == message


@pytest.mark.parametrize(("rank", "said"), [(None, "\nbpe: interrupted\n"), ("0", "\nbpe: interrupted\n"), ("1", "\n")])
def test_of_several_interrupted_processes_only_the_first_reports_it(
    rank: str | None, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(path: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bpe.locate.locate", interrupted)
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    with pytest.raises(SystemExit) as raised:
        cli(["info", "nowhere"])
    assert (raised.value.code, capsys.readouterr().err) == (130, said)
