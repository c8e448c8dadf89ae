"""Test that training interrupted at any point resumes to the same result as uninterrupted training."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bpe import InputError, Tokenizer, train
from bpe.state import checksum
from bpe.training import trainer
from bpe.training import work as training_work
from bpe.training.settings import MergeStep, Trained, TrainingProgress
from bpe.training.work import STATE, read_state
from support.references import BYTE_RANKS
from support.training import train_on

VOCAB_SIZE = 1800


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, corpora: Path) -> Path:
    """A directory with files of several kinds, one of them with bytes that are not UTF-8."""
    directory = tmp_path_factory.mktemp("corpus")
    prose = (corpora / "prose.txt").read_bytes()
    (directory / "a.txt").write_bytes(prose[:30_000])
    (directory / "b.txt.gz").write_bytes(gzip.compress((corpora / "tales-1.txt").read_bytes()[:20_000]))
    lines = (corpora / "tales-2.txt").read_text().splitlines()[:60]
    (directory / "c.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    (directory / "d.txt").write_bytes(b"\xff broken \xc3 " + (corpora / "unicode.txt").read_bytes()[:5000])
    return directory


@pytest.fixture(autouse=True)
def save_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save after each of many small batches and at each report of progress."""
    monkeypatch.setattr(training_work, "SAVE_EVERY", 0)
    monkeypatch.setattr(training_work, "MOST_RUNS", 4)
    monkeypatch.setattr(trainer, "BATCH_BYTES", 10_000)
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: None
    )  # only a crash of the whole system needs it, and disks may be slow


def trained_on(corpus: Path, **options: Any) -> tuple[object, ...]:
    """Return everything that training reports, except times."""
    results: list[Trained] = []
    sources = [str(corpus / "a.txt"), str(corpus)]
    options = {"weights": [2, 0.5], "threads": 2, **options}
    train_on(sources, VOCAB_SIZE, "llama3", ("<|x|>",), trained=results.append, **options)
    result = results[0]
    return (
        list(result.tokenizer.mergeable_ranks.items()),
        result.pairs.tolist(),
        result.counts.tolist(),
        result.uses.tolist(),
        (result.documents, result.size, result.invalid),
    )


@pytest.fixture(scope="module")
def expected(corpus: Path) -> tuple[object, ...]:
    return trained_on(corpus)


def stop_at(number: int) -> Callable[[TrainingProgress], None]:
    """Return a progress callback that raises after `number` calls."""
    calls = iter(range(number))

    def progress(so_far: TrainingProgress) -> None:
        if next(calls, None) is None:
            raise Interrupted(so_far.phase)

    return progress


# Interruptions


def test_interrupted_training_resumes_to_the_same_result(corpus: Path, expected: object, tmp_path: Path) -> None:
    phases = []
    for number in range(1000):
        work = tmp_path / f"work-{number}"
        try:
            assert trained_on(corpus, work=work, progress=stop_at(number)) == expected
            break  # training ended before the interruption
        except Interrupted as interrupted:
            phases.append(str(interrupted))
        assert (work / STATE).exists()
        assert trained_on(corpus, work=work) == expected
        assert not work.exists()
    assert phases.count("count") >= 8
    assert phases.count("merge") >= 4


@pytest.mark.parametrize("each", [1, 2, 5])
def test_training_interrupted_many_times_resumes_to_the_same_result(
    each: int, corpus: Path, expected: object, tmp_path: Path
) -> None:
    times = 0
    while True:
        try:
            result = trained_on(corpus, work=tmp_path / "work", progress=stop_at(each), threads=1 + times % 3)
            break
        except Interrupted:
            times += 1
    assert result == expected
    assert times >= 3
    assert list(tmp_path.iterdir()) == []


def test_resumed_training_continues_the_trace_of_merges(corpus: Path, tmp_path: Path) -> None:
    def ranks(**options: Any) -> list[int]:
        steps: list[MergeStep] = []
        with pytest.raises(Interrupted) if "progress" in options else memoryview(b""):
            trained_on(corpus, trace=600, traced=steps.append, **options)
        return [step.rank for step in steps]

    def in_merging(so_far: TrainingProgress) -> None:
        if so_far.merges:
            raise Interrupted

    before = ranks(work=tmp_path / "work", progress=in_merging)
    assert before == list(range(256, 512))
    assert ranks(work=tmp_path / "work") == list(range(512, 856))


def test_training_can_resume_with_another_vocabulary_size(corpus: Path, tmp_path: Path) -> None:
    def late(so_far: TrainingProgress) -> None:
        if so_far.merges > 1000:
            raise Interrupted

    with pytest.raises(Interrupted):
        trained_on(corpus, work=tmp_path / "work", progress=late)
    shutil.copytree(tmp_path / "work", tmp_path / "other")
    sources, options = [str(corpus / "a.txt"), str(corpus)], {"weights": [2, 0.5]}
    for vocab_size, work in [(600, "work"), (2100, "other")]:
        grown = train_on(sources, vocab_size, "llama3", ("<|x|>",), work=tmp_path / work, **options)  # type: ignore[arg-type]
        at_once = train_on(sources, vocab_size, "llama3", ("<|x|>",), **options)  # type: ignore[arg-type]
        assert list(grown.mergeable_ranks.items()) == list(at_once.mergeable_ranks.items())


def test_training_with_a_base_and_required_tokens_resumes_to_the_same_result(corpus: Path, tmp_path: Path) -> None:
    base = Tokenizer(
        "base",
        pat_str="gpt2",
        mergeable_ranks=BYTE_RANKS | {b"tha": 256, b" whic": 300},
        special_tokens={"<|x|>": 301},
    )

    def ranks(**options: Any) -> list[tuple[bytes, int]]:
        tokenizer = train(str(corpus), 1500, base=base, required_tokens=[" zyzzyva"], **options)
        return list(tokenizer.mergeable_ranks.items())

    expected = ranks()
    for number in (1, 7, 9):
        with pytest.raises(Interrupted):
            ranks(work=tmp_path / "work", progress=stop_at(number))
        assert ranks(work=tmp_path / "work") == expected


@pytest.mark.parametrize("name", ["_keep", "write_json", "write_atomically", "replacing"])
def test_training_resumes_to_the_same_result_after_the_disk_was_full(
    name: str, corpus: Path, expected: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(training_work, name)
    failures = 0
    for number in (0, 1, 2, 3, 5, 8, 13, 1000):
        calls = iter(range(number))

        def failing(path: Any, *rest: Any, calls: Any = calls) -> Any:
            if next(calls, None) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
            return original(path, *rest)

        work = tmp_path / f"work-{number}"
        with monkeypatch.context() as patch:
            patch.setattr(training_work, name, failing)
            try:
                assert trained_on(corpus, work=work) == expected
                continue
            except OSError as error:
                assert str(work) in error.filename
                failures += 1
        assert trained_on(corpus, work=work) == expected
        assert not work.exists()
    assert failures >= 3


# Kills


# Runs `bpe train` in one child process after another until one ends by itself. Each child is killed, either at a random
# access to a file in the directory (an audit event of the interpreter), or at a random time, also within the core.
# Prints the number of killed processes.
KILLER = """
import os, random, signal, sys
import bpe.training.trainer, bpe.training.work
from bpe.cli import main

bpe.training.work.SAVE_EVERY = 0
bpe.training.work.MOST_RUNS = 3
bpe.training.trainer.BATCH_BYTES = 10_000
os.fsync = lambda descriptor: None
kind, seed, directory, *arguments = sys.argv[1:]
work = os.path.join(directory, "my.json.work")
generator = random.Random(seed)

for killed in range(1000):
    number, seconds = generator.randrange(80), generator.uniform(0.001, 0.005 * (killed + 2))
    pid = os.fork()
    if pid == 0:
        def hook(event, arguments):
            global number
            if arguments and isinstance(arguments[0], (str, os.PathLike)) and directory in os.fspath(arguments[0]):
                number -= 1
                if number == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        if kind == "files":
            sys.addaudithook(hook)
        else:
            signal.setitimer(signal.ITIMER_REAL, seconds)  # SIGALRM has no handler, so it ends the process
        resumed = killed % 2 and os.path.exists(os.path.join(work, "state.json"))
        sys.argv = ["bpe", "train", *(["--resume", work] if resumed else arguments)]
        main()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status >= 0:
        print(killed)
        sys.exit(status)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("kind", ["files", "times"])
def test_training_killed_many_times_writes_the_same_file(kind: str, corpus: Path, tmp_path: Path) -> None:
    train(str(corpus), VOCAB_SIZE, special_tokens=(), name="my").save(tmp_path / "expected.json")
    killed = 0
    for seed in range(2):
        directory = tmp_path / str(seed)
        directory.mkdir()
        output = str(directory / "my.json")
        arguments = [str(corpus), "--vocab-size", str(VOCAB_SIZE), "--no-special", "-o", output]
        done = subprocess.run(
            [sys.executable, "-c", KILLER, kind, str(seed), str(directory), *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        assert Path(output).read_bytes() == (tmp_path / "expected.json").read_bytes()
        assert not (directory / "my.json.work").exists()
        killed += int(done.stdout)
    assert killed > 4


# Runs `bpe train`, and at a given save of its counts or merges interrupts the process or limits the size of files.
FAILING_TRAIN = """
import os, resource, signal, sys
import bpe.training.trainer, bpe.training.work
from bpe.cli import main

bpe.training.work.SAVE_EVERY = 0
bpe.training.trainer.BATCH_BYTES = 10_000
name, number, what, *arguments = sys.argv[1:]
calls = iter(range(int(number)))
save = getattr(bpe.training.work.WorkDirectory, name)

def failing(*arguments, **options):
    if next(calls, None) is None:
        if what == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))  # bytes, of any file
    save(*arguments, **options)

setattr(bpe.training.work.WorkDirectory, name, failing)
sys.argv = ["bpe", *arguments]
main()
"""


def run(program: str, *arguments: str | Path, directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=directory)


@pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")
@pytest.mark.parametrize("save", ["save_counts", "save_merges"])
@pytest.mark.parametrize("what", ["interrupt", "full"])
def test_the_command_reports_an_interruption_in_one_line_and_resumes(
    save: str, what: str, corpus: Path, tmp_path: Path
) -> None:
    command = ["train", corpus, "--vocab-size", VOCAB_SIZE, "--no-special", "-o", "my.json"]
    done = run(FAILING_TRAIN, save, 2, what, *map(str, command), directory=tmp_path)
    kept, said = (line for line in done.stderr.splitlines() if line)
    assert kept == "progress is saved; to resume: bpe train --resume my.json.work"
    if what == "interrupt":
        assert (done.returncode, said) == (130, "bpe: interrupted")
    else:
        assert done.returncode == 1
        assert said.startswith("bpe: my.json.work")
        assert said.endswith(": File too large")
    before = read_state(tmp_path / "my.json.work")
    assert before["size"] > 0
    done = run("from bpe.cli import main; main()", "train", "--resume", "my.json.work", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("resuming from my.json.work\n")
    train(str(corpus), VOCAB_SIZE, special_tokens=(), name="my").save(tmp_path / "expected.json")
    assert (tmp_path / "my.json").read_bytes() == (tmp_path / "expected.json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected.json", "my.json"]


# Refused input


@pytest.fixture
def interrupted_run(corpus: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A corpus, and a work directory of training on it that was interrupted while merging."""

    def stop(so_far: TrainingProgress) -> None:
        if so_far.merges > 600:
            raise Interrupted

    shutil.copytree(corpus, tmp_path / "corpus")
    with pytest.raises(Interrupted):
        trained_on(tmp_path / "corpus", work=tmp_path / "work", progress=stop)
    return tmp_path / "corpus", tmp_path / "work"


def test_resuming_with_a_changed_corpus_is_refused_and_names_the_file(interrupted_run: tuple[Path, Path]) -> None:
    corpus, work = interrupted_run
    (corpus / "new.txt").write_text("new")
    with pytest.raises(InputError, match=r"new\.txt is new"):
        trained_on(corpus, work=work)
    (corpus / "new.txt").unlink()
    content = (corpus / "c.jsonl").read_bytes()
    (corpus / "c.jsonl").write_bytes(content + b"\n")
    with pytest.raises(InputError, match=r"c\.jsonl has changed"):
        trained_on(corpus, work=work)
    (corpus / "c.jsonl").unlink()
    with pytest.raises(InputError, match=r"c\.jsonl is missing"):
        trained_on(corpus, work=work)


def test_resuming_with_other_settings_is_refused_and_names_the_setting(
    interrupted_run: tuple[Path, Path], expected: object
) -> None:
    corpus, work = interrupted_run
    others: list[tuple[str, dict[str, Any]]] = [
        ("weights", {"weights": [2, 1]}),
        ("weights", {"weights": None}),
        ("min_frequency", {"min_frequency": 2}),
        ("max_token_length", {"max_token_length": 9}),
        ("base", {"tie_break": "huggingface"}),
    ]
    for name, options in others:
        with pytest.raises(InputError, match=f"^{work}: this run was started with {name} .*, not .*; start over"):
            trained_on(corpus, work=work, **options)
    sources = [str(corpus / "a.txt"), str(corpus)]
    base = Tokenizer(
        "b", pat_str="llama3", mergeable_ranks={bytes([b]): 255 - b for b in range(256)}, special_tokens={}
    )
    for name, pattern, special_tokens, options in [
        ("pattern", "gpt2", ("<|x|>",), {}),
        ("special tokens", "llama3", ("<|y|>",), {}),
        ("base", "llama3", ("<|x|>",), {"base": base}),
    ]:
        with pytest.raises(InputError, match=f"started with {name} "):
            train_on(sources, VOCAB_SIZE, pattern, special_tokens, weights=[2, 0.5], work=work, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="begun with errors 'replace'"):
        trained_on(corpus, work=work, errors="ignore")
    assert trained_on(interrupted_run[0], work=work)[:4] == trained_on(interrupted_run[0])[:4] == expected[:4]  # type: ignore[index]


def test_a_work_directory_with_other_files_is_refused_and_left_unchanged(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "letter.txt").write_text("Dear")
    with pytest.raises(InputError, match=f"^{tmp_path / 'work'}: the directory holds other files"):
        trained_on(corpus, work=tmp_path / "work")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["letter.txt"]
    with pytest.raises(InputError, match=r"letter\.txt: not a directory"):
        trained_on(corpus, work=tmp_path / "work" / "letter.txt")
    with pytest.raises(InputError, match="there is no directory"):
        trained_on(corpus, work=tmp_path / "nowhere" / "work")
    with pytest.raises(InputError, match="no run to resume"):
        read_state(tmp_path)


def test_files_left_by_a_run_killed_before_its_first_save_are_replaced(
    corpus: Path, expected: object, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for name in ("run-000000.counts", "run-000001.counts.part", ".state.json.k3_x9.part", ".merges-000007.u64.ab.part"):
        (work / name).write_bytes(b"half of")
    assert trained_on(corpus, work=work) == expected
    assert not work.exists()


def test_another_file_in_the_work_directory_is_kept(interrupted_run: tuple[Path, Path]) -> None:
    corpus, work = interrupted_run
    (work / "notes.txt").write_text("mine")
    trained_on(corpus, work=work)
    assert [path.name for path in work.iterdir()] == ["notes.txt"]


def test_a_damaged_state_is_refused_and_names_the_file(interrupted_run: tuple[Path, Path]) -> None:
    _, work = interrupted_run
    content = (work / STATE).read_bytes()
    state = read_state(work)
    for at in range(0, len(content), 5):
        for damaged in (content[:at], content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]):
            (work / STATE).write_bytes(damaged)
            try:
                assert read_state(work) == state  # the changed byte was white space
            except InputError as error:
                said = str(error).removeprefix(f"{work / STATE}: ")
                assert said.startswith(("the file is damaged", "not the state of a training run", "version "))


def test_a_state_that_names_files_outside_its_directory_is_refused(
    interrupted_run: tuple[Path, Path], tmp_path: Path
) -> None:
    corpus, work = interrupted_run
    (tmp_path / "precious").write_text("text")
    for change in ({"runs": ["../precious"]}, {"merges": "../precious"}, {"runs": [1]}, {"merges": "/etc/hostname"}):
        state = {**read_state(work), **change}
        (work / STATE).write_text(json.dumps({**state, "checksum": checksum(state)}))
        with pytest.raises(InputError, match="names files that do not belong to a training run"):
            trained_on(corpus, work=work)
        (work / STATE).write_text(json.dumps({**state, "checksum": 0}))
        with pytest.raises(InputError, match="damaged"):
            trained_on(corpus, work=work)
        state = {**state, "runs": [], "merges": "merges-000000.u64"}
        (work / STATE).write_text(json.dumps({**state, "checksum": checksum(state)}))
    assert (tmp_path / "precious").exists()


def test_missing_and_damaged_work_files_are_refused_and_named(interrupted_run: tuple[Path, Path]) -> None:
    corpus, work = interrupted_run
    for name in (*read_state(work)["runs"], read_state(work)["merges"]):
        content = (work / name).read_bytes()
        (work / name).write_bytes(content[:100] + b"x" + content[101:])
        with pytest.raises(
            InputError, match=f"^{work / name}: .*damaged; (begin anew|start over) in another directory"
        ):
            trained_on(corpus, work=work)
        (work / name).unlink()
        with pytest.raises(FileNotFoundError) as missing:
            trained_on(corpus, work=work)
        assert missing.value.filename == str(work / name)
        (work / name).write_bytes(content)
    trained_on(corpus, work=work)
    assert not work.exists()


def test_resume_is_refused_from_another_directory_and_without_a_run(corpus: Path, tmp_path: Path) -> None:
    command = ["train", corpus, "--vocab-size", VOCAB_SIZE, "--no-special", "-o", "my.json"]
    run(FAILING_TRAIN, "save_counts", 2, "interrupt", *map(str, command), directory=tmp_path)
    program = "from bpe.cli import main; main()"
    done = run(program, "train", "--resume", tmp_path / "my.json.work", directory=corpus)
    assert done.returncode == 1
    message = f"{tmp_path}/my.json.work: this training was started in {tmp_path}; resume it from there"
    assert done.stderr == f"bpe: {message}\n"
    done = run(program, "train", "--resume", "nowhere", directory=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "bpe: nowhere: this directory has no run to resume\n"
    with pytest.raises(Interrupted):
        trained_on(corpus, work=tmp_path / "library", progress=stop_at(3))
    done = run(program, "train", "--resume", "library", directory=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("bpe: library: ") and done.stderr.count("\n") == 1
