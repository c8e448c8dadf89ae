"""Values that the shell completes: names, patterns, devices, templates and files.

The metavar or the name of an option or an argument decides what is completed. Nothing here imports torch, or asks the
hub.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

Completer = Callable[[click.Context, str], list[CompletionItem]]

_TOKENIZER_SUFFIXES = (".json", ".model", ".tiktoken", ".gguf")
_MODEL_SUFFIXES = (".gguf", ".safetensors", ".pth")
_RECORD_SUFFIXES = (".jsonl", ".json", ".ndjson", ".parquet", ".jsonl.gz", ".jsonl.zst")


class CompletedText(click.types.StringParamType):
    """A text, some values of which the shell completes.

    Args:
        complete: Returns the values that begin with what is typed.
    """

    def __init__(self, complete: Completer) -> None:
        self._complete = complete

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return self._complete(ctx, incomplete)


def listed(names: Sequence[tuple[str, str]]) -> Completer:
    """Return a completer of fixed names.

    Args:
        names: Each name, and a description for shells that show one.
    """
    return lambda ctx, incomplete: [
        CompletionItem(name, help=text or None) for name, text in names if name.startswith(incomplete)
    ]


def named_or_files(names: Callable[[click.Context], Iterator[tuple[str, str]]], suffixes: tuple[str, ...]) -> Completer:
    """Return a completer of names and of files.

    Args:
        names: Yields each name and its description, given the context of the command.
        suffixes: The suffixes of the files. Without a name or a file that matches, the shell completes any file.
    """

    def complete(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = {name: text for name, text in names(ctx) if name.startswith(incomplete)}
        found |= {file: "" for file in _files(incomplete, suffixes) if file.removesuffix(os.sep) not in found}
        if all(name.endswith(os.sep) for name in found):  # the shell completes directories without a space at the end
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(name, help=text or None) for name, text in found.items()]

    return complete


def _files(incomplete: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Yield the files with a suffix, and the directories, whose paths begin with what is typed."""
    folder, begin = os.path.split(incomplete)
    with suppress(OSError), os.scandir(folder or ".") as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith(begin) and (begin or not entry.name.startswith(".")):
                if entry.is_dir():
                    yield os.path.join(folder, entry.name, "")
                elif entry.name.endswith(suffixes):
                    yield os.path.join(folder, entry.name)


def tokenizer_names(ctx: click.Context) -> Iterator[tuple[str, str]]:
    from bpe.inventory import folder_entries, hub_entries
    from bpe.locate import SOURCES

    yield from ((name, "known name") for name in SOURCES)
    for entry in (*hub_entries(), *folder_entries(Path())):
        if entry.format:
            yield entry.name, f"{entry.source}: {entry.format}"


def _models(ctx: click.Context) -> Iterator[tuple[str, str]]:
    from bpe.inventory import folder_entries, hub_entries
    from bpe.locate import SOURCES

    yield from ((name, "known name") for name, source in SOURCES.items() if source.file.endswith(".gguf"))
    for entry in (*hub_entries(), *folder_entries(Path())):
        if entry.format not in ("", "tokenizer"):
            yield entry.name, f"{entry.source}: {entry.format}"


def _nothing(ctx: click.Context) -> Iterator[tuple[str, str]]:
    return iter(())


def _patterns(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    from bpe.patterns import PATTERNS

    return listed([(name, "") for name in PATTERNS])(ctx, incomplete)


def _known_names(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    from bpe.locate import SOURCES

    return listed([(name, "") for name in SOURCES])(ctx, incomplete)


def _templates(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Complete the names of the chat templates of the model that is on the command line, unless it is on the hub."""
    from bpe.chat.template_files import templates_in, templates_in_metadata
    from bpe.files import read_json
    from bpe.formats.gguf_container import Container
    from bpe.locate import SOURCES, find

    model = str(ctx.params.get("name") or ctx.params.get("model") or "")
    path = (find(model) if model in SOURCES else None) or Path(model)
    found: Sequence[str] = ()
    with suppress(Exception):  # what is wrong with the model, the command itself says
        if path.is_dir():
            config = path / "tokenizer_config.json"
            found = [*templates_in(path, read_json(config) if config.is_file() else {})]
        elif path.suffix == ".gguf":
            found = [*templates_in_metadata(Container.open(path).metadata)]
    return listed([(name, "") for name in found])(ctx, incomplete)


TOKENIZERS = named_or_files(tokenizer_names, _TOKENIZER_SUFFIXES)
MODELS = named_or_files(_models, _MODEL_SUFFIXES)


def _any_file(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


def _directories(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="dir")]


def _model_and_files(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Complete the model first, and then files."""
    return (_any_file if ctx.params.get("arguments") else MODELS)(ctx, incomplete)


_BY_METAVAR: dict[str, Completer] = {
    "CORPUS...": _any_file,
    "DIALOGS...": named_or_files(_nothing, _RECORD_SUFFIXES),
    "DIR": _directories,
    "FILE": _any_file,
    "[FILE]...": _any_file,
    "IN": named_or_files(lambda ctx: iter(dict([*tokenizer_names(ctx), *_models(ctx)]).items()), _TOKENIZER_SUFFIXES),
    "MODEL": MODELS,
    "MODEL [FILE]": _model_and_files,
    "NAME|FILE": TOKENIZERS,
    "NAME|FILE|DIRECTORY": TOKENIZERS,
    "NAME|REGEX": _patterns,
    "[OUT]": _any_file,
    "SHARE|FILE": _any_file,
    "TOKENIZER TOKENIZER... FILE": TOKENIZERS,
    "[TOKENIZER]...": TOKENIZERS,
}
_BY_NAME: dict[str, Completer] = {
    "--choices": named_or_files(_nothing, _RECORD_SUFFIXES),
    "--device": listed([("auto", "CUDA, else MPS, else the CPU"), ("cpu", ""), ("cuda", ""), ("mps", "")]),
    "--lora-target": listed([(name, "") for name in ("wq", "wk", "wv", "wo", "w1", "w2", "w3")]),
    "--require": named_or_files(_nothing, (".txt",)),
    "--template": _templates,
}


def completed_type(parameter: click.Parameter, kind: click.ParamType[Any]) -> click.ParamType[Any]:
    """Return the type of a parameter, or for a plain text, a type that completes what its name or metavar stands for.

    Args:
        parameter: The parameter.
        kind: Its type.
    """
    if type(kind) is not click.types.StringParamType:
        return kind
    if isinstance(parameter, click.Argument) and parameter.metavar == "NAME":
        return CompletedText(_known_names)
    complete = next((_BY_NAME[name] for name in parameter.opts if name in _BY_NAME), None)
    complete = complete or _BY_METAVAR.get(parameter.metavar or "")
    return kind if complete is None else CompletedText(complete)
