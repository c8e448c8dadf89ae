"""The Llama family in PyTorch: configuration, the transformer, training, checkpoints, generation.

>>> import torch
>>> from model import ModelConfig, Transformer
>>> config = ModelConfig.preset("nano", vocab_size=512)
>>> Transformer(config)(torch.tensor([[1, 2, 3]])).shape
torch.Size([1, 3, 512])
"""

from model.cache import KVCache
from model.checkpoint import convert, save
from model.config import PRESETS, ModelConfig
from model.generation.completions import Completion, Completions, complete, generate, generate_ids
from model.generation.generation import Generation, Session
from model.generation.native import NativeModel
from model.generation.sampling import Sampling
from model.loading import load, quantize
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
