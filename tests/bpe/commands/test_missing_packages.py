"""Commands without an optional package: one line that says what needs it and how to install it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Runs bpe as if some packages were not installed.
HIDING = """
import importlib.machinery as machinery, sys
hidden, sys.argv[1:] = sys.argv[1].split(","), sys.argv[2:]
find = machinery.PathFinder.find_spec.__func__
machinery.PathFinder.find_spec = classmethod(
    lambda cls, name, *rest: None if {name, name.split(".")[0]} & {*hidden} else find(cls, name, *rest)
)
from bpe.cli import main
main()
"""


def without(packages: str, *arguments: object) -> tuple[int, str]:
    """Run bpe without packages, and return its status and what it says."""
    command = [sys.executable, "-c", HIDING, packages, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, corpora: Path) -> Path:
    directory = tmp_path_factory.mktemp("sources")
    for name in ("a.parquet", "a.txt.zst"):
        (directory / name).write_bytes(b"content")
    return directory


@pytest.mark.parametrize(
    ("packages", "source", "said"),
    [
        (
            "pyarrow",
            "a.parquet",
            "a Parquet file needs the package pyarrow: pip install 'bpe-llama[parquet]'",
        ),
        (
            "compression,backports",
            "a.txt.zst",
            "backports.zstd: pip install 'bpe-llama[zstd]'",
        ),
        ("fsspec", "s3://b/a.txt", "needs the package fsspec: pip install 'bpe-llama[remote]'"),
        ("s3fs", "s3://b/a.txt", "s3://b/a.txt: reading from s3:// needs the package s3fs: pip install s3fs"),
        ("gcsfs", "gs://b/a.txt", "gs://b/a.txt: reading from gs:// needs the package gcsfs: pip install gcsfs"),
        ("adlfs", "az://b/a.txt", "az://b/a.txt: reading from az:// needs the package adlfs: pip install adlfs"),
    ],
)
def test_a_corpus_that_needs_a_missing_package_names_it(sources: Path, packages: str, source: str, said: str) -> None:
    path = source if "://" in source else sources / source
    status, printed = without(packages, "train", path, "-o", sources / "o.json", "--vocab-size", 600)
    assert status == 1
    assert said in printed
    assert printed.count("\n") == 1
    assert not (sources / "o.json").exists()


@pytest.mark.parametrize(
    ("packages", "arguments", "said"),
    [
        (
            "torch",
            ["pretrain", "--data", "nowhere", "-o", "run", "--steps", "1"],
            "needs the package torch: pip",
        ),
        (
            "tokenizers",
            ["verify", "{t}", "{c}"],
            "a comparison with tokenizers needs the package tokenizers: pip",
        ),
        ("huggingface_hub", ["pull", "org/name"], "huggingface_hub: pip install 'bpe-llama[hub]'"),
        ("starlette", ["playground", "{t}"], "needs the package starlette: pip install 'bpe-llama[serve]'"),
        ("uvicorn", ["playground", "{t}"], "needs the package uvicorn: pip install 'bpe-llama[serve]'"),
    ],
)
def test_a_command_that_needs_a_missing_package_names_it(
    sources: Path, corpora: Path, packages: str, arguments: list[str], said: str
) -> None:
    from bpe import train_from_iterator

    train_from_iterator(["ab"], 257, "gpt2", ()).save(sources / "t.json")
    places = {"{t}": str(sources / "t.json"), "{c}": str(corpora / "tales-1.txt")}
    status, printed = without(packages, *(places.get(argument, argument) for argument in arguments))
    assert status == 1
    assert said in printed
    assert "Traceback" not in printed
