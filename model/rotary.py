"""The rotary position embedding of Llama (Su et al. 2021, arXiv:2104.09864), in NumPy."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from model.config import ModelConfig


def rope_frequencies(config: ModelConfig) -> npt.NDArray[np.float32]:
    """Return the rotation of each pair from one position to the next, in radians.

    With `use_scaled_rope`, low frequencies are scaled down as in Llama 3.1, for a longer context. Frequencies with
    wavelengths above rope_original_length / rope_low_freq_factor are divided by rope_scaling_factor, those with
    wavelengths below rope_original_length / rope_high_freq_factor are unchanged, those between are a linear mixture.

    Computed in float32, in the order of the reference implementations: at position 131,071, the last bit of a frequency
    is a hundredth of a radian. Powers are computed in float64 and rounded, because NumPy's power of float32 differs
    from torch's in every fifth number; the rounded one is torch's for the theta of every published Llama.

    Returns:
        float32 [head_dim / 2].
    """
    exponents = np.arange(0, config.head_dim, 2).astype(np.float32) / np.float32(config.head_dim)
    powers = np.power(config.rope_theta, exponents.astype(np.float64)).astype(np.float32)
    frequencies: npt.NDArray[np.float32] = np.float32(1) / powers
    if not config.use_scaled_rope:
        return frequencies
    low, high = config.rope_low_freq_factor, config.rope_high_freq_factor
    turns = config.rope_original_length / (2 * math.pi / frequencies)  # full turns within the original context
    kept: npt.NDArray[np.float32] = ((turns - low) / (high - low)).clip(0, 1)
    with np.errstate(over="ignore"):  # a factor beyond float32, which is infinite, leaves only `kept`
        scaled: npt.NDArray[np.float32] = (1 - kept) * frequencies / config.rope_scaling_factor + kept * frequencies
    return scaled


def table_length(config: ModelConfig, end: int) -> int:
    """Return the length of the table that has the positions 0 to end - 1, for which few tables serve all lengths."""
    return min(config.max_seq_len, 1 << max(8, (end - 1).bit_length()))


@functools.lru_cache(maxsize=8)
def rotations(config: ModelConfig, length: int) -> npt.NDArray[np.float32]:
    """Return the cosine and the sine of each angle at positions 0 to length - 1: float32 [length, head_dim].

    The two numbers of an angle are neighbours. The angles are float32, as in `model.transformer.rotary_table`.
    """
    angles = np.outer(np.arange(length, dtype=np.float32), rope_frequencies(config)).astype(np.float64)
    return np.stack((np.cos(angles), np.sin(angles)), -1).astype(np.float32).reshape(length, -1)
