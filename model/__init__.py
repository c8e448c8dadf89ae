"""The Llama family in PyTorch: configuration, transformer, checkpoints, generation, evaluation and training.

`import model` loads neither torch nor numpy. Each name below is imported from its module on first use: all but
`Transformer` and `KVCache` work without torch, on models with native kernels.

>>> import torch
>>> from model import ModelConfig, Transformer
>>> config = ModelConfig.preset("nano", vocab_size=512)
>>> Transformer(config)(torch.tensor([[1, 2, 3]])).shape
torch.Size([1, 3, 512])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bpe import __version__ as __version__
    from model.cache import KVCache
    from model.checkpoint import convert, save
    from model.config import PRESETS, ModelConfig
    from model.generation.completions import Completion, Completions, complete, generate, generate_ids, grammar_compiler
    from model.generation.decoding import Generation, Session
    from model.generation.grammar import Grammar, GrammarCompiler
    from model.generation.native import NativeModel
    from model.generation.sampling import Sampling
    from model.generation.speculation import Speculation
    from model.loading import load, quantize
    from model.transformer import Transformer

# A name here must differ from every sub-module and sub-package: importing `model.x` sets the attribute `x` of `model`,
# which would then be the module instead of the function.
_MODULES = {
    "PRESETS": "model.config",
    "Completion": "model.generation.completions",
    "Completions": "model.generation.completions",
    "Generation": "model.generation.decoding",
    "Grammar": "model.generation.grammar",
    "GrammarCompiler": "model.generation.grammar",
    "KVCache": "model.cache",
    "ModelConfig": "model.config",
    "NativeModel": "model.generation.native",
    "Sampling": "model.generation.sampling",
    "Session": "model.generation.decoding",
    "Speculation": "model.generation.speculation",
    "Transformer": "model.transformer",
    "__version__": "bpe",
    "complete": "model.generation.completions",
    "convert": "model.checkpoint",
    "generate": "model.generation.completions",
    "generate_ids": "model.generation.completions",
    "grammar_compiler": "model.generation.completions",
    "load": "model.loading",
    "quantize": "model.loading",
    "save": "model.checkpoint",
}

__all__ = [
    "PRESETS",
    "Completion",
    "Completions",
    "Generation",
    "Grammar",
    "GrammarCompiler",
    "KVCache",
    "ModelConfig",
    "NativeModel",
    "Sampling",
    "Session",
    "Speculation",
    "Transformer",
    "__version__",
    "complete",
    "convert",
    "generate",
    "generate_ids",
    "grammar_compiler",
    "load",
    "quantize",
    "save",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from model.torch_needed import needs_torch

        raise ModuleNotFoundError(needs_torch(f"model.{name}"), name="torch") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
