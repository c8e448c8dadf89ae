"""The Llama family in PyTorch: configuration, the transformer, training, checkpoints, generation.

>>> import torch
>>> from model import ModelConfig, Transformer
>>> config = ModelConfig.preset("nano", vocab_size=512)
>>> Transformer(config)(torch.tensor([[1, 2, 3]])).shape
torch.Size([1, 3, 512])
"""

from model.cache import KVCache
from model.checkpoint import convert, load, quantize, save
from model.config import PRESETS, ModelConfig
from model.generate import Completion, Completions, Generation, Session, complete, generate, generate_ids
from model.native import NativeModel
from model.sampling import Sampling
from model.transformer import Transformer

__all__ = [
    "PRESETS",
    "Completion",
    "Completions",
    "Generation",
    "KVCache",
    "ModelConfig",
    "NativeModel",
    "Sampling",
    "Session",
    "Transformer",
    "complete",
    "convert",
    "generate",
    "generate_ids",
    "load",
    "quantize",
    "save",
]
