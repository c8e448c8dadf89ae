"""`import model` is lazy: it loads no torch and no numpy, and the configuration works without torch."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import model


def run(code: str) -> str:
    """Run Python code in a fresh process and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_model_loads_neither_torch_nor_numpy() -> None:
    assert run("import sys, model; print(sorted({'torch', 'numpy'} & sys.modules.keys()))") == "[]"


@pytest.mark.parametrize(
    "statement", ["from model import PRESETS, ModelConfig", "from model.config import PRESETS, ModelConfig"]
)
def test_the_configuration_needs_no_torch(statement: str) -> None:
    blocked = "import sys; sys.modules['torch'] = None"  # makes `import torch` raise ModuleNotFoundError
    shown = "print(ModelConfig.preset('llama3-8b').n_parameters, 'llama3-8b' in PRESETS)"
    assert run(f"{blocked}; {statement}; {shown}") == "8030261248 True"


def test_every_public_name_is_found_and_listed() -> None:
    constants = {"PRESETS", "__version__"}
    for name in model.__all__:
        assert getattr(model, name) if name in constants else getattr(model, name).__name__ == name
    assert set(model.__all__) <= set(dir(model))
    assert set(model.__all__) == model._MODULES.keys()


def test_no_public_name_is_that_of_a_submodule() -> None:
    """Importing `model.x` sets the attribute `x` of `model`, which would hide a public name `x`."""
    assert not {module.name for module in pkgutil.iter_modules(model.__path__)} & set(model.__all__)


def test_an_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'model' has no attribute 'Llama'"):
        model.Llama  # noqa: B018
