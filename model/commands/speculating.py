"""The options of speculative decoding, the draft model that they name, and the line that says what it gained."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from bpe.commands.inputs import refuse_text
from bpe.commands.options import group
from bpe.commands.terminal import counted
from bpe.errors import InputError
from bpe.progress import say
from model.commands.options import load_model

if TYPE_CHECKING:
    from pathlib import Path

    from bpe import Tokenizer
    from model.config import ModelConfig
    from model.generation.speculation import Speculation, SpeculationCounts

speculation_options: Callable[[Any], Any] = group(
    "Speculative decoding (the same text, often sooner)",
    click.option(
        "--speculate",
        type=click.Choice(["ngram", "layers"]),
        help="Verify several proposed tokens at once. ngram: propose what followed the same tokens earlier in the"
        " prompt or the answer. layers: propose what the model's first layers find most likely.",
    ),
    click.option(
        "--draft", metavar="MODEL", help="Smaller model of the same vocabulary that proposes tokens, likewise."
    ),
    click.option(
        "--draft-layers",
        type=click.IntRange(min=1),
        metavar="N",
        help="With --speculate layers: number of first layers.  [default: a quarter of them]",
    ),
)
"""The options `speculate`, `draft` and `draft_layers`."""


def check_speculation(
    speculate: str | None, draft: str | None, draft_layers: int | None, config: ModelConfig | None = None
) -> Path | None:
    """Check the options and return the path of the draft model, before anything is loaded.

    Args:
        speculate: The option --speculate.
        draft: The option --draft.
        draft_layers: The option --draft-layers.
        config: The configuration of the model, if it is known.

    Raises:
        click.UsageError: When two options exclude each other, or there are not so many layers.
        InputError: When there is no such model.
    """
    from bpe.locate import locate

    if draft_layers is not None and speculate != "layers":
        raise click.UsageError("--draft-layers needs --speculate layers")
    if config is not None and speculate == "layers" and (draft_layers or 1) >= config.n_layers:
        raise click.UsageError(
            f"--draft-layers {draft_layers or 1}: the model has {config.n_layers} layers; give fewer than that"
        )
    if draft is None:
        return None
    if speculate is not None:
        raise click.UsageError(f"--speculate {speculate} and --draft exclude each other; give only one of them")
    refuse_text(draft)
    return locate(draft, "model")


def open_speculation(
    speculate: str | None,
    draft: str | None,
    draft_layers: int | None,
    model: Path,
    config: ModelConfig,
    tokenizer: Tokenizer,
    **options: Any,
) -> Speculation | None:
    """Return the speculation that the options ask for, with its draft model; None if they ask for none.

    Args:
        speculate: The option --speculate.
        draft: The option --draft.
        draft_layers: The option --draft-layers.
        model: The path of the model.
        config: The configuration of the model.
        tokenizer: The tokenizer of the model.
        options: The arguments of `load_model` for the draft model.

    Raises:
        InputError: When the draft model is the model itself, or has another vocabulary.
    """
    path = check_speculation(speculate, draft, draft_layers, config)
    if path is None and speculate is None:
        return None
    from model.generation.completions import check_same_tokens
    from model.generation.speculation import Speculation

    if speculate == "layers":
        return Speculation(layers=draft_layers or max(1, config.n_layers // 4))
    if path is None:
        return Speculation()
    if path.resolve() == model.resolve():
        raise InputError(f"--draft {draft}: this is the model itself, which cannot be faster; give a smaller one")
    drafting, drafts = load_model(path, **options)
    try:
        check_same_tokens(tokenizer, drafts)
    except InputError as error:
        raise InputError(f"--draft {draft}: {error}") from None
    if drafting.config.max_seq_len < config.max_seq_len:
        say(
            f"bpe: --draft {draft}: its context holds {drafting.config.max_seq_len:,} tokens, that of the model"
            f" {config.max_seq_len:,}; it proposes nothing after its own"
        )
    return Speculation(draft=drafting, draft_tokenizer=drafts)


def speculation_line(by: str, counts: SpeculationCounts) -> str:
    """Return a line on what speculation did."""
    source = {"ngram": "n-grams", "draft": "the draft model", "layers": "the first layers"}[by]
    if not counts.proposed:
        return f"speculation by {source}: nothing proposed"
    return (
        f"speculation by {source}: {counted(counts.proposed, 'token')} proposed, {counts.accepted_share:.0%} accepted;"
        f" {counts.tokens_per_call:.2f} tokens per call; about {counts.gain:.2f} times the rate without"
    )


def speculation_record(by: str, counts: SpeculationCounts) -> dict[str, Any]:
    """Return the fields of JSON on what speculation did."""
    return {
        "by": by,
        "calls": counts.calls,
        "proposed": counts.proposed,
        "accepted": counts.accepted,
        "accepted_share": counts.accepted_share,
        "tokens_per_call": counts.tokens_per_call,
        "gain": counts.gain,
    }
