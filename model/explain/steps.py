"""The walk through a model, step by step: what becomes of a prompt from its ids to the token that comes next.

The numbers are those of the model's own forward pass, taken where they arise. Only scores, mask and softmax are
reckoned here, from the very queries and keys, because the model's attention is one operation that keeps none of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpe.errors import InputError
from model.config import ModelConfig
from model.transformer import Block, Transformer

MOST_TOKENS = 2048  # the map of each token with each grows with their square, and nobody looks at a larger one


class ForwardStep(NamedTuple):
    """One thing that happens, and what comes of it."""

    title: str
    text: str
    """One sentence on what was done."""
    tensor: Tensor
    axes: str
    """What the axes of the tensor count, such as "time x dim"."""
    picture: Literal["ids", "rows", "shares", "layers", "next"] = "rows"
    """ids: tokens; rows: numbers of any size; shares: [time x time], each row sums to 1; layers: a row for the
    embeddings and for each layer after them; next: a row of probabilities of ids."""
    guesses: Tensor | None = None
    """float32 [layers + 1, vocabulary], only of `layers`: the probabilities, were each row the last."""

    @property
    def shape(self) -> str:
        """As it is printed: [17 x 4096]."""
        return f"[{' x '.join(map(str, self.tensor.shape))}]"

    @property
    def dtype(self) -> str:
        """Of the tensor, such as bfloat16."""
        return str(self.tensor.dtype).removeprefix("torch.")


def explain(
    model: Transformer, ids: Sequence[int], *, layer: int = 0, head: int = 0, n_vocab: int | None = None
) -> Iterator[ForwardStep]:
    """Run the model on a prompt, and give what arises in one layer and one head, in the order in which it does.

    ids: the prompt. layer, head: from 0. n_vocab: ids that the tokenizer knows, of which the next one is to be; by
    default, all of the model's. Logits, and so the last steps, are those of the token that follows the prompt.
    Raises InputError where the prompt is empty or too long, layer or head do not exist, or numbers are not finite.
    """
    config = model.config
    for name, number, count in (("layer", layer, config.n_layers), ("head", head, config.n_heads)):
        if not 0 <= number < count:
            raise InputError(f"{name} {number}: the model has {count}; give a number from 0 to {count - 1}")
    if not ids:
        raise InputError("the prompt is empty and there is no token that begins a text; give at least one character")
    if MOST_TOKENS < len(ids) <= config.max_seq_len:
        raise InputError(f"the prompt has {len(ids)} tokens, and a walk takes {MOST_TOKENS:,} or fewer; shorten it")
    prompt = torch.tensor([list(ids)], device=model.tok_embeddings.weight.device)
    with torch.inference_mode():
        seen = _record(model, prompt, layer)
        if not bool(torch.isfinite(seen.logits).all()):
            raise InputError(
                "the logits are not finite (NaN or infinity); the weights are damaged, or need --dtype float32"
            )
        stream = torch.stack(seen.stream)  # layers + 1 times [dim] -> [layers + 1, dim]
        logits = torch.cat((model.head(model.norm(stream[:-1])), seen.logits))  # [layers + 1, vocabulary]
        guesses = logits[:, :n_vocab].float().softmax(-1)
        return iter(_steps(config, prompt[0], seen, layer, head, stream, guesses))


class _Seen:
    """What a forward pass leaves behind, without the axis of the batch."""

    def __init__(self) -> None:
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        """By the names of modules: [time, numbers]."""
        self.stream: list[Tensor] = []
        """The residual stream of the last token, after the embeddings and after each layer: [dim] each."""
        self.attention: tuple[Tensor, Tensor, Tensor, Tensor] = ()  # type: ignore[assignment]
        """Rotated queries, rotated keys, values and what attention made of them: [heads, time, head_dim]."""

    @property
    def logits(self) -> Tensor:
        return self.outputs["output"]


def _record(model: Transformer, prompt: Tensor, layer: int) -> _Seen:
    """One forward pass of `prompt` [1, time], watched from outside."""
    seen = _Seen()
    block = cast(Block, model.layers[layer])
    attention = block.attention
    attend = attention.attend

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            seen.inputs[name], seen.outputs[name] = inputs[0][0], output[0]

        return hook

    def keep_stream(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        seen.stream.append(output[0, -1])

    def attend_and_keep(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None) -> Tensor:
        attended = attend(queries, keys, values, visible)
        seen.attention = queries[0], keys[0], values[0], attended[0]
        return attended

    watched = {
        **{name: module for name, module in block.named_modules() if name},
        "layer": block, "tok_embeddings": model.tok_embeddings, "norm": model.norm, "output": model.output,
    }  # fmt: skip
    handles = [module.register_forward_hook(keep(name)) for name, module in watched.items()]
    handles += [module.register_forward_hook(keep_stream) for module in (model.tok_embeddings, *model.layers)]
    try:
        attention.attend = attend_and_keep
        model(prompt, last_only=True)
    finally:
        attention.attend = attend
        for handle in handles:
            handle.remove()
    return seen


def _steps(
    config: ModelConfig, prompt: Tensor, seen: _Seen, layer: int, head: int, stream: Tensor, guesses: Tensor
) -> Iterator[ForwardStep]:
    inputs, outputs = seen.inputs, seen.outputs
    d, heads = config.head_dim, config.n_heads
    shared = heads // config.n_kv_heads  # query heads to each key-value head
    group = head // shared
    with_bias = ", plus their bias" if config.qkv_bias else ""
    users = f"that heads {group * shared} to {group * shared + shared - 1} share" if shared > 1 else "of this head"

    def of_head(name: str, number: int) -> Tensor:
        return outputs[f"attention.{name}"].reshape(len(prompt), -1, d)[:, number]  # [t, heads * d] -> [t, d]

    yield ForwardStep(
        "tokens", "The prompt as the tokenizer cuts it; the model sees these numbers only.", prompt, "time", "ids"
    )
    yield ForwardStep(
        "embeddings",
        f"Each id takes its row of a table of {config.vocab_size:,}; where a token stands plays no part yet.",
        outputs["tok_embeddings"],
        "time x dim",
    )
    if layer:
        yield ForwardStep(
            f"residual stream, before layer {layer}",
            f"The embeddings, and all that the {layer} layers before have added to them.",
            inputs["attention_norm"],
            "time x dim",
        )
    yield ForwardStep(
        f"layer {layer}: norm",
        "Each row over its root mean square, times a learned weight for each dimension.",
        outputs["attention_norm"],
        "time x dim",
    )
    yield ForwardStep(
        f"queries of head {head}",
        f"The norm times the {d} rows of wq for head {head} of {heads}{with_bias}: what each token looks for.",
        of_head("wq", head),
        "time x head_dim",
    )
    yield ForwardStep(
        f"keys of key-value head {group}",
        f"The same with wk, for the keys {users}: what each token is found by.",
        of_head("wk", group),
        "time x head_dim",
    )
    yield ForwardStep(
        f"values of key-value head {group}",
        f"The same with wv, for the values {users}: what each token hands over.",
        of_head("wv", group),
        "time x head_dim",
    )
    queries, keys, _, attended = seen.attention
    scaled = ", slowed for the longer context" if config.use_scaled_rope else ""
    yield ForwardStep(
        "queries, rotated",
        f"Pair i of neighbouring numbers turns by position x {config.rope_theta:,.0f}^(-2i/{d}) radians{scaled}.",
        queries[head],
        "time x head_dim",
    )
    yield ForwardStep(
        "keys, rotated",
        "The keys as well, so that a query with a key tells how far apart they stand; values are not turned.",
        keys[group],
        "time x head_dim",
    )
    scores = queries[head].float() @ keys[group].float().T / math.sqrt(d)  # [t, d], [t, d] -> [t, t]
    yield ForwardStep("scores", f"Each query times each key, over the square root of {d}.", scores, "time x time")
    masked = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -math.inf)
    yield ForwardStep(
        "scores, masked", "A token sees itself and those before; all later ones become -inf.", masked, "time x time"
    )
    yield ForwardStep(
        "attention of each token to each",
        "Softmax makes every row shares that sum to 1: a row looks, the columns are looked at.",
        masked.softmax(-1),
        "time x time",
        "shares",
    )
    yield ForwardStep(f"output of head {head}", "The values, mixed by these shares.", attended[head], "time x head_dim")
    yield ForwardStep(
        "all heads, joined",
        f"The outputs of all {heads} heads side by side.",
        inputs["attention.wo"],
        "time x heads * head_dim",
    )
    yield ForwardStep(
        "attention's output",
        f"Times wo{', plus its bias' if config.wo_bias else ''}: what all heads found, as a change to the stream.",
        outputs["attention.wo"],
        "time x dim",
    )
    yield ForwardStep(
        "residual stream, after attention",
        "The sum of what the layer was given and the change.",
        inputs["ffn_norm"],
        "time x dim",
    )
    yield ForwardStep("norm", "As before, with weights of its own.", outputs["ffn_norm"], "time x dim")
    gate = outputs["feed_forward.w1"]
    yield ForwardStep("feed-forward: w1", "The norm times w1, into a wider space: the gate.", gate, "time x hidden_dim")
    yield ForwardStep(
        "SiLU",
        "x / (1 + e^-x): large numbers pass, negative ones are all but shut off.",
        F.silu(gate),
        "time x hidden_dim",
    )
    yield ForwardStep(
        "w3", "The norm times w3: what is to pass the gate.", outputs["feed_forward.w3"], "time x hidden_dim"
    )
    yield ForwardStep(
        "gated",
        "What passed SiLU times what w3 made, number by number.",
        inputs["feed_forward.w2"],
        "time x hidden_dim",
    )
    yield ForwardStep(
        "feed-forward's output",
        "Times w2: the second change to the stream.",
        outputs["feed_forward.w2"],
        "time x dim",
    )
    yield ForwardStep(
        f"residual stream, after layer {layer}",
        "The sum again: what the next layer is given.",
        outputs["layer"],
        "time x dim",
    )
    yield ForwardStep(
        f"all {config.n_layers} layers",
        "The last token's stream: its root mean square, and what would be likeliest next if the last norm came here.",
        stream,
        "layer x dim",
        "layers",
        guesses,
    )
    yield ForwardStep("last norm", "Once more, after the last layer.", outputs["norm"], "time x dim")
    tied = ", which is the table of embeddings again" if config.tied_embeddings else ""
    yield ForwardStep(
        "logits",
        f"The last token's row times the output matrix{tied}: one number for each id.",
        seen.logits,
        "time x vocabulary",
    )
    yield ForwardStep(
        "next token", "Softmax of the logits: the likeliest ids.", guesses[-1:], "time x vocabulary", "next"
    )
