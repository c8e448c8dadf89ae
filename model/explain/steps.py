"""The steps of a forward pass, from the ids of a prompt to the probabilities of the next token.

The tensors are recorded during the model's own forward pass. Only scores, mask and softmax are computed here, from the
recorded queries and keys, because the model's attention is one operation that does not expose them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from bpe.errors import InputError
from model.config import ModelConfig
from model.softcap import softcapped
from model.transformer import ACTIVATIONS, Block, Transformer

MOST_TOKENS = 2048  # the attention map grows with the square of this number, and a larger map is of no use
MOST_SHARES = 1 << 26  # numbers in all maps that `attention_maps` returns: 256 MB


class ForwardStep(NamedTuple):
    """One operation of a forward pass, and its result."""

    title: str
    text: str
    """One sentence that says what the operation does."""
    tensor: Tensor
    axes: str
    """The axes of the tensor, such as "time x dim"."""
    picture: Literal["ids", "rows", "shares", "layers", "next"] = "rows"
    """How to draw the tensor. "ids": tokens; "rows": any numbers; "shares": [time x time], where each row sums to 1;
    "layers": a row for the embeddings and for each layer; "next": a row of probabilities of ids."""
    guesses: Tensor | None = None
    """Only for "layers", float32 [layers + 1, n_vocab]: the next token's probabilities if each row were the last."""

    @property
    def shape(self) -> str:
        """The shape as it is printed, such as [17 x 4096]."""
        return f"[{' x '.join(map(str, self.tensor.shape))}]"

    @property
    def dtype(self) -> str:
        """The dtype as it is printed, such as bfloat16."""
        return str(self.tensor.dtype).removeprefix("torch.")


def explain(
    model: Transformer, ids: Sequence[int], *, layer: int = 0, head: int = 0, n_vocab: int | None = None
) -> Iterator[ForwardStep]:
    """Run a model on a prompt and return the steps of one layer and one head, in order.

    Args:
        model: The model.
        ids: The prompt.
        layer: The number of the layer, from 0.
        head: The number of the query head, from 0.
        n_vocab: The number of ids that the tokenizer has, from which the next token is chosen. Defaults to all ids of
            the model.

    Returns:
        The steps. The last steps are about the token that follows the prompt.

    Raises:
        InputError: When the prompt is empty or too long, the layer or head does not exist, or a logit is not finite.
    """
    config = model.config
    _check(config, ids, layer, head)
    prompt = torch.tensor([list(ids)], device=model.tok_embeddings.weight.device)
    with torch.inference_mode():
        seen = _record(model, prompt, layer)
        if not bool(torch.isfinite(seen.logits).all()):
            raise InputError("the logits contain NaN or infinity; the weights are damaged, or need --dtype float32")
        stream = torch.stack(seen.stream)  # layers + 1 times [dim] -> [layers + 1, dim]
        *_, last = _finished_logits(config, seen.logits)
        logits = torch.cat((model.head(model.norm(stream[:-1])), last.tensor))  # [layers + 1, vocabulary]
        guesses = logits[:, :n_vocab].float().softmax(-1)
        walk = _Walk(config, prompt[0], seen, layer, head)
        if layer in config.cross_attention_layers:
            return itertools.chain(_image_layer_steps(walk), _output_steps(walk, stream, guesses))
        parts = (_input_steps, _projection_steps, _attention_steps, _feed_forward_steps)
        return itertools.chain(*(part(walk) for part in parts), _output_steps(walk, stream, guesses))


def attention_maps(model: Transformer, ids: Sequence[int], *, layers: Sequence[int], heads: Sequence[int]) -> Tensor:
    """Run a model on a prompt and return the attention of several heads.

    Args:
        model: The model.
        ids: The prompt.
        layers: The numbers of the layers, from 0.
        heads: The numbers of the query heads, from 0.

    Returns:
        The share of each token (columns) in the attention of each token (rows), float32 [layers, heads, time, time] on
        the CPU.

    Raises:
        InputError: When the prompt is empty or too long, or a layer or head does not exist.
    """
    config, time = model.config, len(ids)
    for layer, head in itertools.product(layers, heads):
        _check(config, ids, layer, head)
        if layer in config.cross_attention_layers:
            raise InputError(
                f"layer {layer}: it reads images, so its tokens do not attend to tokens; use another layer"
            )
    longest = math.isqrt(MOST_SHARES // max(1, len(layers) * len(heads)))
    if time > longest:
        maps = f"{len(layers) * len(heads):,} attention maps"
        raise InputError(
            f"the prompt has {time:,} tokens; for {maps} at once, at most {longest:,} fit; shorten it, or name a layer "
            "and a head"
        )
    prompt = torch.tensor([list(ids)], device=model.tok_embeddings.weight.device)
    shares = torch.zeros(len(layers), len(heads), time, time)
    later = torch.ones(time, time, dtype=torch.bool, device=prompt.device).triu(1)

    def keep(row: int, queries: Tensor, keys: Tensor, visible: Tensor | None) -> None:
        hidden = later if visible is None else ~visible.view(time, time)
        for column, head in enumerate(heads):
            group = head * config.n_kv_heads // config.n_heads
            scores = softcapped(scaled_scores(config, queries[head], keys[group]), config.attention_softcap)
            shares[row, column] = scores.masked_fill(hidden, -math.inf).softmax(-1).cpu()

    attentions = [cast(Block, model.layers[layer]).attention for layer in layers]
    attend = [attention.attend for attention in attentions]

    def watched(row: int) -> Callable[..., Tensor]:
        def attend_and_keep(
            queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None, scale: float
        ) -> Tensor:
            keep(row, queries[0], keys[0], visible)
            return attend[row](queries, keys, values, visible, scale)

        return attend_and_keep

    try:
        with torch.inference_mode():
            for row, attention in enumerate(attentions):
                attention.attend = watched(row)
            model(prompt, last_only=True)
    finally:
        for attention, before in zip(attentions, attend, strict=True):
            attention.attend = before
    return shares


def scaled_scores(config: ModelConfig, queries: Tensor, keys: Tensor) -> Tensor:
    """Return the scores of queries and keys of one head, before soft cap and mask: [t, d], [t, d] -> [t, t]."""
    return queries.float() @ keys.float().T * config.attention_scale


def _check(config: ModelConfig, ids: Sequence[int], layer: int, head: int) -> None:
    for name, number, count in (("layer", layer, config.n_layers), ("head", head, config.n_heads)):
        if not 0 <= number < count:
            raise InputError(f"{name} {number}: the model has {count}; give a number from 0 to {count - 1}")
    if not ids:
        raise InputError("the prompt is empty and no token begins a text; give at least one character")
    if MOST_TOKENS < len(ids) <= config.max_seq_len:
        raise InputError(f"the prompt has {len(ids)} tokens, but at most {MOST_TOKENS:,} can be explained; shorten it")


class _Seen:
    """The tensors recorded in a forward pass, without the batch axis."""

    def __init__(self) -> None:
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        """Inputs and outputs by module name: [time, numbers]."""
        self.stream: list[Tensor] = []
        """The residual stream of the last token after the embeddings and after each layer, [dim] each. A layer that
        reads images is passed over, so it repeats the stream before it."""
        self.attention: tuple[Tensor, Tensor, Tensor, Tensor] = ()  # type: ignore[assignment]
        """Rotated queries, rotated keys, values and the output of attention: [heads, time, head_dim] each."""
        self.visible: Tensor | None = None
        """bool [time, time], what each token attends to; None for itself and all tokens before."""

    @property
    def logits(self) -> Tensor:
        """The product with the output matrix, before scale and soft cap: [1, vocabulary]."""
        return self.outputs["output"]


def _record(model: Transformer, prompt: Tensor, layer: int) -> _Seen:
    """Record one forward pass of `prompt` [1, time] by hooks."""
    seen, streams = _Seen(), dict[int, Tensor]()
    block = model.layers[layer]

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            # Experts and their router read the tokens of all texts as rows, without a batch axis.
            seen.inputs[name], seen.outputs[name] = (x[0] if x.dim() > 2 else x for x in (inputs[0], output))

        return hook

    def keep_stream(number: int) -> Callable[..., None]:
        scale = model.config.embedding_multiplier if number < 0 else 1

        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            last = output[0, -1]
            streams[number] = last if scale == 1 else last * torch.tensor(scale, dtype=output.dtype)

        return hook

    read = [number for number in range(layer) if number not in model.config.cross_attention_layers]
    watched = {
        **{name: module for name, module in block.named_modules() if name},
        "before": model.layers[read[-1]] if read else model.tok_embeddings,
        "layer": block, "tok_embeddings": model.tok_embeddings, "norm": model.norm, "output": model.output,
    }  # fmt: skip
    handles = [module.register_forward_hook(keep(name)) for name, module in watched.items()]
    counted = enumerate((model.tok_embeddings, *model.layers), -1)
    handles += [module.register_forward_hook(keep_stream(number)) for number, module in counted]
    try:
        with nullcontext() if layer in model.config.cross_attention_layers else _attention_kept(block.attention, seen):
            model(prompt, last_only=True)
    finally:
        for handle in handles:
            handle.remove()
    for number in range(-1, model.config.n_layers):
        seen.stream.append(streams[number] if number in streams else seen.stream[-1])
    return seen


@contextmanager
def _attention_kept(attention: Any, seen: _Seen) -> Iterator[None]:
    """Record what the attention of a layer reads and returns."""
    attend = attention.attend

    def attend_and_keep(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None, scale: float) -> Tensor:
        attended: Tensor = attend(queries, keys, values, visible, scale)
        seen.attention = queries[0], keys[0], values[0], attended[0]
        seen.visible = None if visible is None else visible.view(visible.shape[-2:])
        return attended

    try:
        attention.attend = attend_and_keep
        yield
    finally:
        attention.attend = attend


@dataclass(frozen=True)
class _Walk:
    """The layer and head to explain, and the tensors of one forward pass."""

    config: ModelConfig
    prompt: Tensor
    """The ids of the prompt [time]."""
    seen: _Seen
    layer: int
    head: int

    @property
    def group(self) -> int:
        """The key-value head that the head attends to."""
        return self.head // self.sharing

    @property
    def sharing(self) -> int:
        """The number of query heads for each key-value head."""
        return self.config.n_heads // self.config.n_kv_heads

    def projected(self, name: str, number: int) -> Tensor:
        """Return the rows of one head in the output of a projection, [time, head_dim]."""
        output = self.seen.outputs[f"attention.{name}"]
        return output.reshape(len(self.prompt), -1, self.config.head_dim)[:, number]  # [t, heads * d] -> [t, d]


def _input_steps(walk: _Walk) -> Iterator[ForwardStep]:
    config, seen, layer = walk.config, walk.seen, walk.layer
    yield ForwardStep(
        "tokens", "The prompt, split by the tokenizer; the model sees only these ids.", walk.prompt, "time", "ids"
    )
    yield ForwardStep(
        "embeddings",
        f"Each id selects its row of a table of {config.vocab_size:,}; positions have no effect yet.",
        seen.outputs["tok_embeddings"],
        "time x dim",
    )
    if config.embedding_multiplier != 1:
        rows = seen.outputs["tok_embeddings"]
        rows = rows * torch.tensor(config.embedding_multiplier, dtype=rows.dtype)
        yield ForwardStep("embeddings, scaled", f"Times {config.embedding_multiplier:g}.", rows, "time x dim")
    if layer:
        yield ForwardStep(
            f"residual stream, before layer {layer}",
            f"The embeddings, plus everything that the {layer} layers before have added.",
            seen.inputs["attention_norm"],
            "time x dim",
        )


def _image_layer_steps(walk: _Walk) -> Iterator[ForwardStep]:
    """Yield the steps of a layer that reads images, which a text does not have."""
    yield from itertools.islice(_input_steps(walk), 2)
    yield ForwardStep(
        f"layer {walk.layer}: passed over",
        "This layer reads images. The text has none, so the stream stays as it is.",
        walk.seen.outputs["before"],
        "time x dim",
    )


def _projection_steps(walk: _Walk) -> Iterator[ForwardStep]:
    config, layer, head, group, sharing = walk.config, walk.layer, walk.head, walk.group, walk.sharing
    d = config.head_dim
    with_bias = ", plus their bias" if config.qkv_bias else ""
    users = f"that heads {group * sharing} to {group * sharing + sharing - 1} share" if sharing > 1 else "of this head"
    read = "norm" if config.pre_norm else "stream"
    if config.pre_norm:
        yield ForwardStep(
            f"layer {layer}: norm",
            f"Each row divided by its root mean square, times {_norm_weight(config)} for each dimension.",
            walk.seen.outputs["attention_norm"],
            "time x dim",
        )
    yield ForwardStep(
        f"queries of head {head}",
        f"The {read} times the {d} rows of wq for head {head} of {config.n_heads}{with_bias}: what each token"
        " looks for.",
        walk.projected("wq", head),
        "time x head_dim",
    )
    yield ForwardStep(
        f"keys of key-value head {group}",
        f"The same with wk, for the keys {users}: what each token is found by.",
        walk.projected("wk", group),
        "time x head_dim",
    )
    yield ForwardStep(
        f"values of key-value head {group}",
        f"The same with wv, for the values {users}: what each token passes on.",
        walk.projected("wv", group),
        "time x head_dim",
    )
    yield from _position_steps(walk)


def _norm_weight(config: ModelConfig) -> str:
    return "1 plus a learned weight" if config.norm_offset else "a learned weight"


def _position_steps(walk: _Walk) -> Iterator[ForwardStep]:
    """The norms of queries and keys, and their rotation."""
    config, head, group, d = walk.config, walk.head, walk.group, walk.config.rotated_dim
    if config.qk_norm != "none":
        over = "Each head" if config.qk_norm == "head" else "All heads together"
        for name, number, what in (("q_norm", head, "queries"), ("k_norm", group, "keys")):
            text = f"{over} divided by the root mean square, times {_norm_weight(config)} for each dimension."
            yield ForwardStep(f"{what}, normalised", text, walk.projected(name, number), "time x head_dim")
    kind = config.layer_kind(walk.layer)
    if kind.rope == "none":
        return
    theta = config.local_rope_theta if kind.rope == "local" else config.rope_theta
    part = f" of the first {d} numbers" if config.rotary_dim else ""
    queries, keys, _, _ = walk.seen.attention
    scaled = ", slowed for the longer context" if config.rope_scaling != "none" and kind.rope == "global" else ""
    yield ForwardStep(
        "queries, rotated",
        f"Pair i of neighbouring numbers{part} turns by position x {theta:,.0f}^(-2i/{d}) radians{scaled}.",
        queries[head],
        "time x head_dim",
    )
    yield ForwardStep(
        "keys, rotated",
        "The same for keys, so that query times key depends on their distance; values are not rotated.",
        keys[group],
        "time x head_dim",
    )


def _attention_steps(walk: _Walk) -> Iterator[ForwardStep]:
    config, head = walk.config, walk.head
    queries, keys, _, attended = walk.seen.attention
    d = config.head_dim
    scores = scaled_scores(config, queries[head], keys[walk.group])
    scale = f"times {config.attention_scale:g}" if config.attention_multiplier else f"over the square root of {d}"
    unrotated = config.layer_kind(walk.layer).rope == "none"
    blind = " This layer does not rotate them, so positions have no effect on the scores." if unrotated else ""
    yield ForwardStep("scores", f"Each query times each key, {scale}.{blind}", scores, "time x time")
    if config.attention_softcap:
        bound = f"{config.attention_softcap:g}"
        scores = softcapped(scores, config.attention_softcap)
        yield ForwardStep("scores, capped", f"{bound} * tanh(score / {bound}) bounds them.", scores, "time x time")
    hidden = torch.ones_like(scores, dtype=torch.bool).triu(1) if walk.seen.visible is None else ~walk.seen.visible
    masked = scores.masked_fill(hidden, -math.inf)
    window = config.layer_kind(walk.layer).window
    others = "all others" if window else "later tokens"
    yield ForwardStep(
        "scores, masked",
        f"A token sees {_seen_in(window)}; scores of {others} become -inf.",
        masked,
        "time x time",
    )
    yield ForwardStep(
        "attention of each token to each",
        "Softmax turns every row into shares that sum to 1: the row's token attends to the columns' tokens.",
        masked.softmax(-1),
        "time x time",
        "shares",
    )
    yield ForwardStep(f"output of head {head}", "The values, mixed by these shares.", attended[head], "time x head_dim")
    yield ForwardStep(
        "all heads, joined",
        f"The outputs of all {config.n_heads} heads side by side.",
        walk.seen.inputs["attention.wo"],
        "time x heads * head_dim",
    )
    yield ForwardStep(
        "attention's output",
        f"Times wo{', plus its bias' if config.wo_bias else ''}: the change that attention makes to the stream.",
        walk.seen.outputs["attention.wo"],
        "time x dim",
    )


def _seen_in(window: int) -> str:
    """Return which tokens a token sees in a window, 0 for none."""
    before = {0: "the tokens before it", 1: "", 2: "the token before it"}.get(
        window, f"the {window - 1:,} tokens before it"
    )
    return f"itself and {before}" if before else "only itself"


def _feed_forward_steps(walk: _Walk) -> Iterator[ForwardStep]:
    inputs, outputs, config = walk.seen.inputs, walk.seen.outputs, walk.config
    if config.post_norm:
        yield ForwardStep("norm", "Of attention's output.", outputs["attention_post_norm"], "time x dim")
    yield ForwardStep(
        "residual stream, after attention",
        f"The input of the layer plus this change{_times(config)}.",
        inputs["ffn_norm"],
        "time x dim",
    )
    if config.pre_norm:
        yield ForwardStep("norm", "As before, with its own weights.", outputs["ffn_norm"], "time x dim")
    yield from _expert_steps(walk) if config.has_experts(walk.layer) else _gate_steps(walk)
    if config.post_norm:
        yield ForwardStep("norm", "Of the feed-forward's output.", outputs["ffn_post_norm"], "time x dim")
    yield ForwardStep(
        f"residual stream, after layer {walk.layer}",
        f"The stream plus this change{_times(config)}: the input of the next layer.",
        outputs["layer"],
        "time x dim",
    )


def _times(config: ModelConfig) -> str:
    return "" if config.residual_multiplier == 1 else f" times {config.residual_multiplier:g}"


def _expert_steps(walk: _Walk) -> Iterator[ForwardStep]:
    """The experts that the router chooses for each token, and their mixture."""
    config, outputs = walk.config, walk.seen.outputs
    shares = outputs["feed_forward.router"].softmax(-1, dtype=torch.float32)  # [t, experts]
    yield ForwardStep(
        "router", f"Softmax turns {config.n_experts} numbers into the experts' shares.", shares, "time x experts"
    )
    chosen, numbers = shares.topk(config.n_experts_per_token)
    if config.normalize_experts:
        chosen = chosen / chosen.sum(-1, keepdim=True)
    kept = torch.zeros_like(shares).scatter(-1, numbers, chosen)
    last = ", ".join(f"{number} ({share:.0%})" for number, share in zip(numbers[-1], chosen[-1], strict=True))
    yield ForwardStep("chosen experts", f"The last token's are {last}; others have 0.", kept, "time x experts")
    yield ForwardStep(
        "feed-forward's output", "The experts' outputs, mixed by these shares.", outputs["feed_forward"], "time x dim"
    )


def _gate_steps(walk: _Walk) -> Iterator[ForwardStep]:
    inputs, outputs, config = walk.seen.inputs, walk.seen.outputs, walk.config
    read = "norm" if config.pre_norm else "stream"
    silu = config.activation == "silu"
    name = "SiLU" if silu else "GELU"
    with_bias = ", plus its bias" if config.ffn_bias else ""
    formula = "x / (1 + e^-x)" if silu else "x times the normal distribution's share below x"
    gate = outputs["feed_forward.w1"]
    yield ForwardStep(
        "feed-forward: w1", f"The {read} times w1{with_bias}, into a wider space: the gate.", gate, "time x hidden_dim"
    )
    yield ForwardStep(
        name,
        f"{formula}: large numbers pass, negative numbers are almost shut off.",
        ACTIVATIONS[config.activation](gate),
        "time x hidden_dim",
    )
    yield ForwardStep(
        "w3",
        f"The {read} times w3{with_bias}: the numbers to be gated.",
        outputs["feed_forward.w3"],
        "time x hidden_dim",
    )
    yield ForwardStep(
        "gated",
        f"The output of {name} times the output of w3, number by number.",
        inputs["feed_forward.w2"],
        "time x hidden_dim",
    )
    yield ForwardStep(
        "feed-forward's output",
        f"Times w2{with_bias}: the second change to the stream.",
        outputs["feed_forward.w2"],
        "time x dim",
    )


def _output_steps(walk: _Walk, stream: Tensor, guesses: Tensor) -> Iterator[ForwardStep]:
    config, seen = walk.config, walk.seen
    yield ForwardStep(
        f"all {config.n_layers} layers",
        "The last token's stream: its root mean square, and the likeliest next token if the last norm came here.",
        stream,
        "layer x dim",
        "layers",
        guesses,
    )
    yield ForwardStep("last norm", "The same norm again, after the last layer.", seen.outputs["norm"], "time x dim")
    yield from _finished_logits(config, seen.logits)
    yield ForwardStep(
        "next token", "Softmax of the logits: the likeliest ids.", guesses[-1:], "time x vocabulary", "next"
    )


def _finished_logits(config: ModelConfig, logits: Tensor) -> Iterator[ForwardStep]:
    """Yield the product with the output matrix, and what scale and soft cap make of it, as `Transformer.head` does."""
    tied = ", which is the table of embeddings again" if config.tied_embeddings else ""
    text = f"The last token's row times the output matrix{tied}: one number for each id."
    yield ForwardStep("logits", text, logits, "time x vocabulary")
    if config.logits_scaling != 1:
        logits = logits / config.logits_scaling
        yield ForwardStep("logits, scaled", f"Over {config.logits_scaling:g}.", logits, "time x vocabulary")
    if config.logits_softcap:
        logits, bound = softcapped(logits, config.logits_softcap), f"{config.logits_softcap:g}"
        yield ForwardStep(
            "logits, capped", f"{bound} * tanh(logit / {bound}) bounds them.", logits, "time x vocabulary"
        )
