"""The transformer in float64 NumPy: the reference for tests of the model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model import ModelConfig, Transformer

Array = npt.NDArray[np.float64]


def _rope_frequencies(config: ModelConfig) -> Array:
    """Return the rotation of each pair of dimensions, in radians per position, `[head_dim / 2]`."""
    angular = np.array([config.rope_theta ** (-2.0 * i / config.head_dim) for i in range(config.head_dim // 2)])
    if config.rope_scaling == "llama3":
        for i, frequency in enumerate(angular):
            wavelength = 2 * np.pi / frequency
            longest = config.rope_original_length / config.rope_low_freq_factor
            shortest = config.rope_original_length / config.rope_high_freq_factor
            if wavelength > longest:
                angular[i] = frequency / config.rope_scaling_factor
            elif wavelength >= shortest:
                mix = (config.rope_original_length / wavelength - config.rope_low_freq_factor) / (
                    config.rope_high_freq_factor - config.rope_low_freq_factor
                )
                angular[i] = (1 - mix) * frequency / config.rope_scaling_factor + mix * frequency
    return angular


def reference_logits(model: Transformer, ids: list[int]) -> Array:
    """Return the logits of a model, computed in float64 NumPy, one position and one head at a time.

    Args:
        model: The model, whose weights are converted to float64.
        ids: The ids of one text.

    Returns:
        Logits `[ids, vocabulary]`, float64.
    """
    config = model.config
    weights = {name: tensor.detach().double().numpy() for name, tensor in model.state_dict().items()}
    angular = _rope_frequencies(config)

    def norm(x: Array, weight: Array) -> Array:
        return x / np.sqrt(np.mean(x * x) + config.norm_eps) * weight

    def turned(head: Array, position: int) -> npt.NDArray[np.complex128]:
        return (head[0::2] + 1j * head[1::2]) * np.exp(1j * position * angular)

    stream = [weights["tok_embeddings.weight"][token] for token in ids]
    for layer in range(config.n_layers):
        w = {name.split(".", 2)[2]: value for name, value in weights.items() if name.startswith(f"layers.{layer}.")}
        inputs = [norm(x, w["attention_norm.weight"]) for x in stream]
        heads = {
            name: [(w[f"attention.{name}.weight"] @ x).reshape(-1, config.head_dim) for x in inputs]
            for name in ("wq", "wk", "wv")
        }
        attended = []
        for position in range(len(ids)):
            outputs = []
            for head in range(config.n_heads):
                group = head * config.n_kv_heads // config.n_heads
                query = turned(heads["wq"][position][head], position)
                scores = []
                for earlier in range(position + 1):
                    key = turned(heads["wk"][earlier][group], earlier)
                    # The real part of q times the conjugate of k is the dot product of the pairs.
                    scores.append(np.real(np.sum(query * np.conj(key))) / np.sqrt(config.head_dim))
                shares = np.exp(np.array(scores) - max(scores))
                shares /= shares.sum()
                outputs.append(sum(share * heads["wv"][i][group] for i, share in enumerate(shares)))
            attended.append(w["attention.wo.weight"] @ np.concatenate(outputs))
        stream = [x + y for x, y in zip(stream, attended, strict=True)]
        for position, x in enumerate(stream):
            y = norm(x, w["ffn_norm.weight"])
            gate = w["feed_forward.w1.weight"] @ y
            gate = gate / (1 + np.exp(-gate))
            stream[position] = x + w["feed_forward.w2.weight"] @ (gate * (w["feed_forward.w3.weight"] @ y))
    output = weights["tok_embeddings.weight" if config.tied_embeddings else "output.weight"]
    return np.array([output @ norm(x, weights["norm.weight"]) for x in stream])
