"""The walk through a model, step by step: what becomes of a prompt from its ids to the token that comes next.

The numbers are those of the model's own forward pass, taken where they arise. Only scores, mask and softmax are
reckoned here, from the very queries and keys, because the model's attention is one operation that keeps none of them.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpe.errors import InputError
from bpe.files import replacing
from model.config import ModelConfig
from model.transformer import Block, Transformer

MOST_TOKENS = 2048  # the map of each token with each grows with their square, and nobody looks at a larger one

Label = Callable[[int], str]
"""From the id of a token to how it is shown."""


class Step(NamedTuple):
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
) -> Iterator[Step]:
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
) -> Iterator[Step]:
    inputs, outputs = seen.inputs, seen.outputs
    d, heads = config.head_dim, config.n_heads
    shared = heads // config.n_kv_heads  # query heads to each key-value head
    group = head // shared
    with_bias = ", plus their bias" if config.qkv_bias else ""
    users = f"that heads {group * shared} to {group * shared + shared - 1} share" if shared > 1 else "of this head"

    def of_head(name: str, number: int) -> Tensor:
        return outputs[f"attention.{name}"].reshape(len(prompt), -1, d)[:, number]  # [t, heads * d] -> [t, d]

    yield Step(
        "tokens", "The prompt as the tokenizer cuts it; the model sees these numbers only.", prompt, "time", "ids"
    )
    yield Step(
        "embeddings",
        f"Each id takes its row of a table of {config.vocab_size:,}; where a token stands plays no part yet.",
        outputs["tok_embeddings"],
        "time x dim",
    )
    if layer:
        yield Step(
            f"residual stream, before layer {layer}",
            f"The embeddings, and all that the {layer} layers before have added to them.",
            inputs["attention_norm"],
            "time x dim",
        )
    yield Step(
        f"layer {layer}: norm",
        "Each row over its root mean square, times a learned weight for each dimension.",
        outputs["attention_norm"],
        "time x dim",
    )
    yield Step(
        f"queries of head {head}",
        f"The norm times the {d} rows of wq for head {head} of {heads}{with_bias}: what each token looks for.",
        of_head("wq", head),
        "time x head_dim",
    )
    yield Step(
        f"keys of key-value head {group}",
        f"The same with wk, for the keys {users}: what each token is found by.",
        of_head("wk", group),
        "time x head_dim",
    )
    yield Step(
        f"values of key-value head {group}",
        f"The same with wv, for the values {users}: what each token hands over.",
        of_head("wv", group),
        "time x head_dim",
    )
    queries, keys, _, attended = seen.attention
    scaled = ", slowed for the longer context" if config.use_scaled_rope else ""
    yield Step(
        "queries, rotated",
        f"Pair i of neighbouring numbers turns by position x {config.rope_theta:,.0f}^(-2i/{d}) radians{scaled}.",
        queries[head],
        "time x head_dim",
    )
    yield Step(
        "keys, rotated",
        "The keys as well, so that a query with a key tells how far apart they stand; values are not turned.",
        keys[group],
        "time x head_dim",
    )
    scores = queries[head].float() @ keys[group].float().T / math.sqrt(d)  # [t, d], [t, d] -> [t, t]
    yield Step("scores", f"Each query times each key, over the square root of {d}.", scores, "time x time")
    masked = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -math.inf)
    yield Step(
        "scores, masked", "A token sees itself and those before; all later ones become -inf.", masked, "time x time"
    )
    yield Step(
        "attention of each token to each",
        "Softmax makes every row shares that sum to 1: a row looks, the columns are looked at.",
        masked.softmax(-1),
        "time x time",
        "shares",
    )
    yield Step(f"output of head {head}", "The values, mixed by these shares.", attended[head], "time x head_dim")
    yield Step(
        "all heads, joined",
        f"The outputs of all {heads} heads side by side.",
        inputs["attention.wo"],
        "time x heads * head_dim",
    )
    yield Step(
        "attention's output",
        f"Times wo{', plus its bias' if config.wo_bias else ''}: what all heads found, as a change to the stream.",
        outputs["attention.wo"],
        "time x dim",
    )
    yield Step(
        "residual stream, after attention",
        "The sum of what the layer was given and the change.",
        inputs["ffn_norm"],
        "time x dim",
    )
    yield Step("norm", "As before, with weights of its own.", outputs["ffn_norm"], "time x dim")
    gate = outputs["feed_forward.w1"]
    yield Step("feed-forward: w1", "The norm times w1, into a wider space: the gate.", gate, "time x hidden_dim")
    yield Step(
        "SiLU",
        "x / (1 + e^-x): large numbers pass, negative ones are all but shut off.",
        F.silu(gate),
        "time x hidden_dim",
    )
    yield Step("w3", "The norm times w3: what is to pass the gate.", outputs["feed_forward.w3"], "time x hidden_dim")
    yield Step(
        "gated",
        "What passed SiLU times what w3 made, number by number.",
        inputs["feed_forward.w2"],
        "time x hidden_dim",
    )
    yield Step(
        "feed-forward's output",
        "Times w2: the second change to the stream.",
        outputs["feed_forward.w2"],
        "time x dim",
    )
    yield Step(
        f"residual stream, after layer {layer}",
        "The sum again: what the next layer is given.",
        outputs["layer"],
        "time x dim",
    )
    yield Step(
        f"all {config.n_layers} layers",
        "The last token's stream: its root mean square, and what would be likeliest next if the last norm came here.",
        stream,
        "layer x dim",
        "layers",
        guesses,
    )
    yield Step("last norm", "Once more, after the last layer.", outputs["norm"], "time x dim")
    tied = ", which is the table of embeddings again" if config.tied_embeddings else ""
    yield Step(
        "logits",
        f"The last token's row times the output matrix{tied}: one number for each id.",
        seen.logits,
        "time x vocabulary",
    )
    yield Step("next token", "Softmax of the logits: the likeliest ids.", guesses[-1:], "time x vocabulary", "next")


# --- pictures ---

COLUMNS = 78  # what fits a terminal of 80, indented by two
CELLS = 32  # in a row: a divisor of what dimensions usually are
LABEL = 12  # columns of a label
ROWS = 24  # of a map; more tokens than these are left out at the front
WAVE = "▁▂▃▄▅▆▇█"
SHADES = ((0.6, "█"), (0.3, "▓"), (0.1, "▒"), (0.02, "░"), (0.0, "·"))
BLUES_TO_REDS = (27, 33, 75, 117, 217, 209, 203, 196)
DARK_TO_BRIGHT = {"█": 226, "▓": 214, "▒": 168, "░": 62, "·": 240}


def picture(step: Step, ids: Sequence[int], label: Label, *, top: int = 10, colour: bool = False) -> list[str]:
    """The lines that show a step's numbers, at most COLUMNS wide; with the `top` likeliest tokens."""
    painted = _painted if colour else _plain
    if step.picture == "ids":
        return _ids(ids, label)
    if step.picture == "shares":
        return _shares(step.tensor, ids, label, painted)
    if step.picture == "next":
        return _next(step.tensor[0], label, top)
    if step.picture == "layers":
        return _layers(step, label, painted)
    names = [label(id) for id in ids[-len(step.tensor) :]]
    shown = range(len(names)) if len(names) <= 3 else (0, 1, len(names) - 1)
    lines = [
        f"{_short(names[row])}  {_wave(step.tensor[row], painted)} {_numbers(step.tensor[row])}".rstrip()
        for row in shown
    ]
    return lines if len(names) <= 3 else [*lines[:2], "...", lines[2]]


def record(step: Step, label: Label, *, top: int = 10) -> dict[str, Any]:
    """A step as JSON takes it: what it is, its extremes and mean, its picture's numbers."""
    numbers = step.tensor.float()
    finite = numbers[torch.isfinite(numbers)]
    found: dict[str, Any] = {
        "title": step.title,
        "text": step.text,
        "axes": step.axes.split(" x "),
        "shape": list(step.tensor.shape),
        "dtype": step.dtype,
    }
    if step.picture == "ids":
        ids = step.tensor.tolist()
        return found | {"tokens": [{"id": id, "token": label(id)} for id in ids]}
    found |= {"min": finite.min().item(), "max": finite.max().item(), "mean": finite.mean().item()}
    if step.picture == "shares":
        found["shares"] = numbers.tolist()
    if step.guesses is not None:
        sizes = _root_mean_squares(step.tensor)
        found["layers"] = [
            {"root_mean_square": size, **_likeliest(guess, label, 1)[0]}
            for size, guess in zip(sizes, step.guesses, strict=True)
        ]
    if step.picture == "next":
        found["next"] = _likeliest(step.tensor[0], label, top)
    return found


def _likeliest(probabilities: Tensor, label: Label, count: int) -> list[dict[str, Any]]:
    values, ids = probabilities.topk(min(count, len(probabilities)))
    pairs = zip(values.tolist(), ids.tolist(), strict=True)
    return [{"id": id, "token": label(id), "probability": value} for value, id in pairs]


def _root_mean_squares(rows: Tensor) -> list[float]:
    sizes: list[float] = rows.float().square().mean(-1).sqrt().tolist()
    return sizes


def _plain(character: str, colour: int) -> str:
    return character


def _painted(character: str, colour: int) -> str:
    return f"\x1b[38;5;{colour}m{character}\x1b[0m"


def _short(text: str, width: int = LABEL) -> str:
    """The text in so many columns of a terminal."""
    if _columns(text) > width:
        while _columns(text) >= width:
            text = text[:-1]
        text += "…"
    return text + " " * (width - _columns(text))


def _columns(text: str) -> int:
    """How wide a terminal draws it: marks stand on what is before them, and Chinese takes twice the room of Latin."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.category(character) in ("Mn", "Me") for character in text)


def _binned(row: Tensor) -> list[Tensor]:
    """The row in at most CELLS pieces of about the same length."""
    return list(row.float().cpu().tensor_split(min(CELLS, len(row))))


def _wave(row: Tensor, painted: Callable[[str, int], str]) -> str:
    """A character for each piece of the row, by the number in it that is farthest from 0; blank for -inf."""
    farthest = [
        piece[piece.abs().argmax()].item()
        for piece in (piece[torch.isfinite(piece)] for piece in _binned(row))
        if len(piece)
    ]
    most = max(map(abs, farthest), default=0) or 1
    wave = []
    for number in farthest:
        level = min(int((number / most + 1) / 2 * len(WAVE)), len(WAVE) - 1)
        wave.append(painted(WAVE[level], BLUES_TO_REDS[level]))
    return "".join(wave) + " " * (CELLS - len(wave))


def _numbers(row: Tensor) -> str:
    """The first two and the last, each in nine columns."""
    shown = [_number(number) for number in (row if len(row) <= 3 else row[[0, 1, -1]]).tolist()]
    return "".join(shown if len(row) <= 3 else [*shown[:2], " ..", shown[2]])


def _number(number: float) -> str:
    return f" {number:8.3g}" if number == 0 or 0.001 <= abs(number) < 1000 or math.isinf(number) else f" {number:8.1e}"


def _ids(ids: Sequence[int], label: Label) -> list[str]:
    cut = [f"{label(id)} {id}" for id in ids]
    lines = [""]
    for text in cut if len(cut) <= 4 * ROWS else ["...", *cut[-4 * ROWS :]]:
        if lines[-1] and _columns(lines[-1]) + 3 + _columns(text) > COLUMNS:
            lines.append("")
        lines[-1] += ("   " if lines[-1] else "") + text
    return lines


def _shares(shares: Tensor, ids: Sequence[int], label: Label, painted: Callable[[str, int], str]) -> list[str]:
    count = len(ids)
    lines = [f"(the last {ROWS} of {count} rows)"] if count > ROWS else []
    if count > CELLS:
        lines.append(f"(each column adds up about {count / CELLS:.0f} tokens)")
    for row in range(max(0, count - ROWS), count):
        seen = torch.zeros(count, dtype=torch.bool)
        seen[: row + 1] = True
        cells = ""
        for share, visible in zip(_binned(shares[row]), _binned(seen), strict=True):
            shade = next(shade for least, shade in SHADES if share.sum().item() >= least) if visible.any() else " "
            cells += painted(2 * shade, DARK_TO_BRIGHT[shade]) if shade != " " else ""
        lines.append(f"{_short(label(ids[row]))}  {cells}")
    return [*lines, f"{'':<{LABEL}}  · below 2%, ░ from 2%, ▒ 10%, ▓ 30%, █ 60%"]


def _layers(step: Step, label: Label, painted: Callable[[str, int], str]) -> list[str]:
    assert step.guesses is not None
    lines = []
    for row, size in enumerate(_root_mean_squares(step.tensor)):
        (guess,) = _likeliest(step.guesses[row], label, 1)
        name = f"layer {row - 1}" if row else "embeddings"
        wave = _wave(step.tensor[row], painted)
        lines.append(
            f"{name:<{LABEL}}  {wave}  {size:8.3g} {guess['probability']:6.1%}  {_short(guess['token']).rstrip()}"
        )
    return lines


def _next(probabilities: Tensor, label: Label, top: int) -> list[str]:
    found = _likeliest(probabilities, label, top)
    most = found[0]["probability"] if found else 1
    return [
        f"{_short(each['token'])}  {'█' * max(1, round(CELLS * each['probability'] / most)):<{CELLS}}"
        f"  {each['probability']:8.2%}  {each['id']}"
        for each in found
    ]


def plot_shares(shares: Tensor, names: Sequence[str], title: str, path: Path) -> None:
    """Draw who looks at whom, [time x time], as a PNG; it needs matplotlib, from the extra ``report``."""
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    from bpe.plots import drawable

    count = len(names)
    side = min(max(4.0, 2 + 0.24 * count), 14)
    figure = Figure(figsize=(side + 0.8, side), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    drawn = shares.float().cpu().masked_fill(torch.ones(count, count, dtype=torch.bool).triu(1), math.nan)
    # By the square root, or what many tokens share would be dark all over.
    image = axes.imshow(drawn.numpy(), cmap="viridis", norm=PowerNorm(0.5, 0, 1))
    step = -(-count // 48)  # labels of more tokens would lie upon each other
    places = range(0, count, step)
    labels = [drawable(names[place], 16) for place in places]
    axes.set_xticks(places, labels, rotation=90)
    axes.set_yticks(places, labels)
    axes.tick_params(labelsize=8, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("to this token")
    axes.set_ylabel("share of the attention of this token")
    axes.set_title(drawable(title, 80), loc="left", fontsize=11)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=25)
    bar.outline.set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
