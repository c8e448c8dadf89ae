"""The rooms of the house: who may import whom, and no circle anywhere, in Python and in C++."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the lowest room to the highest: a file may import its own room and lower ones. A package stands for all its
# files, but "bpe" and "model" for what their __init__ imports, which is what a program gets that imports only them.
PYTHON = [
    ["bpe.errors", "bpe.arguments", "bpe.optional", "bpe.quoting", "bpe._core"],
    [
        "bpe.files",
        "bpe.gguf_split",
        "bpe.drawing",
        "bpe.kinds",
        "bpe.processor",
        "bpe.text",
        "bpe.state",
        "bpe.splitting",
        "bpe.normalizers",
        "bpe.patterns",
        "bpe.published_patterns",
        "bpe.boundaries",
        "bpe.character_merges",
        "bpe.columns",
    ],
    ["bpe.progress"],
    ["bpe.vocabulary", "bpe.piece_vocabulary"],
    ["bpe.subwords", "bpe.formats", "bpe.unstable", "bpe.offsets", "bpe.special", "bpe.tokenizer_batches"],
    ["bpe.display", "bpe.tokenizer", "bpe.streaming", "bpe.hub", "bpe.locate", "bpe.inventory"],
    ["bpe.corpus", "bpe.chat"],
    ["bpe.training", "bpe.shards", "bpe.verify"],
    ["bpe"],
    ["bpe.analysis", "bpe.playground"],
    ["bpe.commands"],
    [
        "model._core",
        "model.presets",
        "model.view",
        "model.vision_config",
        "model.memory",
        "model.dtypes",
        "model.threads",
        "model.torch_needed",
    ],
    ["model.config"],
    [
        "model.rotary",
        "model.device",
        "model.lengths",
        "model.masks",
        "model.experts",
        "model.vision",
        "model.images",
        "model.cross_attention",
    ],
    ["model.cache", "model.softcap"],
    ["model.transformer"],
    ["model.cpu", "model.lora"],
    ["model.checkpoint"],
    ["model.generation"],
    ["model.loading"],
    ["model"],
    ["model.evaluation", "model.explain", "model.training"],
    ["model.serving"],
    ["model.commands"],
    ["cli", "bpe.__main__"],
]
BPE_CORE = [["base"], ["text"], ["kernels"], ["split"], ["encode"], ["train"], ["bindings"]]
MODEL_CORE = [["kernels"], ["base"], ["bindings"]]


def python_files() -> dict[str, Path]:
    files = [ROOT / "cli.py", *(ROOT / "bpe").rglob("*.py"), *(ROOT / "model").rglob("*.py")]
    modules = {}
    for file in files:
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if name != "bpe.cli" and ".core." not in name:  # cli.py is installed as bpe.cli; core holds a generator
            modules[name] = file
    return modules


def imports_of(file: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    """Yield the modules of the project that a file imports at run time, inside functions too."""
    tree = ast.parse(file.read_text("utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in modules or full in ("bpe._core", "model._core"):
                    yield full
                elif node.module in modules:
                    yield node.module


def room_of(module: str, rooms: list[list[str]]) -> int:
    matches = [
        (len(name), floor)
        for floor, names in enumerate(rooms)
        for name in names
        if module == name or (name not in ("bpe", "model") and module.startswith(name + "."))
    ]
    assert matches, f"{module} has no room in this test"
    return max(matches)[1]


def circle_in(arrows: Mapping[str, set[str]]) -> list[str]:
    """Return the files of one circle, or nothing."""
    done: set[str] = set()

    def visit(file: str, path: list[str]) -> list[str]:
        if file in path:
            return path[path.index(file) :]
        if file in done:
            return []
        for other in sorted(arrows.get(file, ())):
            if found := visit(other, [*path, file]):
                return found
        done.add(file)
        return []

    return next((found for file in arrows if (found := visit(file, []))), [])


def test_python_files_import_only_their_own_room_and_lower_ones() -> None:
    modules = python_files()
    upward = [
        f"{module} -> {imported}"
        for module, file in modules.items()
        for imported in imports_of(file, modules)
        if room_of(imported, PYTHON) > room_of(module, PYTHON)
    ]
    assert not upward


def test_no_circle_of_python_files() -> None:
    modules = python_files()
    arrows = {module: set(imports_of(file, modules)) - {module} for module, file in modules.items()}
    assert sum(map(len, arrows.values())) > 300
    assert circle_in(arrows) == []


def test_bpe_never_imports_torch_or_the_model() -> None:
    for module, file in python_files().items():
        if module.split(".")[0] == "bpe":
            assert not re.search(r"^\s*(from|import) (torch|model)\b", file.read_text("utf-8"), re.MULTILINE), module


# What the model's core takes from the tokenizer's core.
SHARED = {"bpe/core/bindings/gil", "bpe/core/base/kernel_choice", "bpe/core/base/errors"}


def cpp_arrows(core: Path) -> dict[str, set[str]]:
    """Return what each unit includes. A unit is a header and the source of the same name."""
    arrows: dict[str, set[str]] = {}
    for file in (*core.rglob("*.cpp"), *core.rglob("*.hpp")):
        unit = str(file.relative_to(core).with_suffix(""))
        included = re.findall(r'^#include "([^"]+)\.hpp"', file.read_text("utf-8"), re.MULTILINE)
        if core.parent.name == "model":
            included = [name for name in included if name not in SHARED]
        for name in included:
            assert (core / f"{name}.hpp").exists(), f"{file}: {name} does not name its room"
        arrows.setdefault(unit, set()).update(name for name in included if name != unit)
    return arrows


@pytest.mark.parametrize(("core", "rooms"), [("bpe/core", BPE_CORE), ("model/core", MODEL_CORE)])
def test_cpp_files_include_only_their_own_room_and_lower_ones(core: str, rooms: list[list[str]]) -> None:
    def room(unit: str) -> int:
        folder = unit.partition("/")[0] if "/" in unit else "base"
        return next(floor for floor, names in enumerate(rooms) if folder in names)

    arrows = cpp_arrows(ROOT / core)
    assert sum(map(len, arrows.values())) > 30
    assert [f"{unit} -> {name}" for unit, names in arrows.items() for name in names if room(name) > room(unit)] == []
    assert circle_in(arrows) == []


def test_only_one_header_uses_what_the_limited_api_lacks() -> None:
    lacking = re.compile(
        r"\b(Py\w+_(GET|SET)_[A-Z]+|Py\w+_(AS_STRING|ITEMS|DATA)|PyUnstable_\w+|Py_SIZE|_PyBytes_Resize|PyUnicode_New|tp_name|ob_digit)\b"
    )
    users = {
        file.name
        for core in ("bpe/core", "model/core")
        for file in (ROOT / core / "bindings").glob("*.?pp")
        if lacking.search(file.read_text("utf-8"))
    }
    assert users == {"limited.hpp"}
