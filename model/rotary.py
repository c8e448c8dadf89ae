"""The rotary position embedding of Llama (Su et al. 2021, arXiv:2104.09864), in NumPy."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from model.config import ModelConfig, Rope, RopeScaling


def rope_frequencies(config: ModelConfig, end: int = 1, *, local: bool = False) -> npt.NDArray[np.float32]:
    """Return the rotation of each pair from one position to the next, in radians.

    Computed in float32, in the order of the reference implementations: at position 131,071, the last bit of a frequency
    is a hundredth of a radian. Powers are computed in float64 and rounded, because NumPy's power of float32 differs
    from torch's in every fifth number; the rounded one is torch's for the theta of every published Llama.

    Args:
        config: The configuration of the model.
        end: The number of positions. With "dynamic" and "longrope" scaling, the frequencies depend on it.
        local: Return the frequencies of the layers with local_rope_theta, which are never scaled.

    Returns:
        float32 [rotary_dim / 2].
    """
    if local:
        return _unscaled(config.local_rope_theta, config.rotated_dim)
    return _SCALINGS[config.rope_scaling](config, end)


def depends_on_length(config: ModelConfig) -> bool:
    """Return whether frequencies depend on the number of positions."""
    return config.rope_scaling in ("dynamic", "longrope")


def _unscaled(
    theta: float, rotary_dim: int, divisors: npt.NDArray[np.float32] | float = 1.0
) -> npt.NDArray[np.float32]:
    exponents = np.arange(0, rotary_dim, 2).astype(np.float32) / np.float32(rotary_dim)
    powers = np.power(theta, exponents.astype(np.float64)).astype(np.float32)
    frequencies: npt.NDArray[np.float32] = np.float32(1) / (np.asarray(divisors, np.float32) * powers)
    return frequencies


def _plain(config: ModelConfig, end: int) -> npt.NDArray[np.float32]:
    return _unscaled(config.rope_theta, config.rotated_dim)


def _linear(config: ModelConfig, end: int) -> npt.NDArray[np.float32]:
    """Divide every frequency: positions are interpolated (Chen et al. 2023, arXiv:2306.15595)."""
    divided: npt.NDArray[np.float32] = _plain(config, end) / np.float32(config.rope_scaling_factor)
    return divided


def _dynamic(config: ModelConfig, end: int) -> npt.NDArray[np.float32]:
    """Raise theta with the length, beyond the original context ("dynamic NTK")."""
    factor, original, d = config.rope_scaling_factor, config.rope_original_length, config.rotated_dim
    longer = factor * max(end, original) / original - (factor - 1)
    return _unscaled(config.rope_theta * longer ** (d / (d - 2)), d)


def _llama3(config: ModelConfig, end: int) -> npt.NDArray[np.float32]:
    """Scale low frequencies down, as in Llama 3.1.

    Frequencies with wavelengths above rope_original_length / rope_low_freq_factor are divided by rope_scaling_factor,
    those with wavelengths below rope_original_length / rope_high_freq_factor are unchanged, those between are a linear
    mixture.
    """
    frequencies = _plain(config, end)
    low, high = config.rope_low_freq_factor, config.rope_high_freq_factor
    turns = config.rope_original_length / (2 * math.pi / frequencies)  # full turns within the original context
    kept: npt.NDArray[np.float32] = ((turns - low) / (high - low)).clip(0, 1)
    with np.errstate(over="ignore"):  # a factor beyond float32, which is infinite, leaves only `kept`
        scaled: npt.NDArray[np.float32] = (1 - kept) * frequencies / config.rope_scaling_factor + kept * frequencies
    return scaled


def _yarn(config: ModelConfig, end: int) -> npt.NDArray[np.float32]:
    """Divide slow frequencies, keep fast ones, and mix those between ("NTK by parts"; Peng et al. 2023,
    arXiv:2309.00071, section 3.2)."""
    d, factor = config.rotated_dim, config.rope_scaling_factor

    def pair_with(turns: float) -> float:
        """The number of the pair that makes so many turns in the original context; numbers are not whole."""
        return d * math.log(config.rope_original_length / (turns * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    first, last = pair_with(config.rope_beta_fast), pair_with(config.rope_beta_slow)
    if config.rope_truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, d - 1)
    if first == last:
        last += 0.001
    ramp = ((np.arange(d // 2, dtype=np.float32) - np.float32(first)) / np.float32(last - first)).clip(0, 1)
    kept: npt.NDArray[np.float32] = np.float32(1) - ramp
    divided = _unscaled(config.rope_theta, d, factor)
    mixed: npt.NDArray[np.float32] = divided * (1 - kept) + _plain(config, end) * kept
    return mixed


def _longrope(config: ModelConfig, end: int) -> npt.NDArray[np.float32]:
    """Divide each frequency by a number of its own (Ding et al. 2024, arXiv:2402.13753), given for texts within and
    beyond the original context."""
    factors = config.rope_long_factors if end > config.rope_original_length else config.rope_short_factors
    return _unscaled(config.rope_theta, config.rotated_dim, np.array(factors, np.float32))


_SCALINGS: dict[RopeScaling, Callable[[ModelConfig, int], npt.NDArray[np.float32]]] = {
    "none": _plain,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}


def table_length(config: ModelConfig, end: int) -> int:
    """Return the length of the table that has the positions 0 to end - 1, for which few tables serve all lengths."""
    longest = config.max_seq_len
    if depends_on_length(config):  # a table beyond the original context has other frequencies
        if end <= config.rope_original_length:
            longest = min(longest, config.rope_original_length)
        elif config.rope_scaling == "dynamic":
            return end
    return min(longest, 1 << max(8, (end - 1).bit_length()))


def used_ropes(config: ModelConfig) -> list[Rope]:
    """Return which rotary positions the layers of a model have, each kind once."""
    return list(dict.fromkeys(config.layer_kind(layer).rope for layer in range(config.n_layers)))


@functools.lru_cache(maxsize=8)
def rotation_tables(config: ModelConfig, length: int) -> npt.NDArray[np.float32]:
    """Return the rotations of each kind in `used_ropes`: float32 [kinds, length, head_dim].

    Numbers of a head that are not rotated have the angle 0.
    """
    ropes = used_ropes(config)
    tables = np.zeros((len(ropes), length, config.head_dim), np.float32)
    tables[:, :, ::2] = 1
    for table, rope in zip(tables, ropes, strict=True):
        if rope != "none":
            table[:, : config.rotated_dim] = rotations(config, length, local=rope == "local")
    return tables


def rotations(config: ModelConfig, length: int, *, local: bool = False) -> npt.NDArray[np.float32]:
    """Return the cosine and the sine of each angle at positions 0 to length - 1: float32 [length, rotary_dim].

    The two numbers of an angle are neighbours. The angles are float32, as in `model.transformer.rotary_table`.

    Args:
        config: The configuration of the model.
        length: The number of positions.
        local: Return the angles of the layers with local_rope_theta, as in `rope_frequencies`.
    """
    frequencies = rope_frequencies(config, length, local=local)
    angles = np.outer(np.arange(length, dtype=np.float32), frequencies).astype(np.float64)
    table = np.stack((np.cos(angles), np.sin(angles)), -1) * (1.0 if local else config.rope_attention_factor)
    return table.astype(np.float32).reshape(length, -1)
