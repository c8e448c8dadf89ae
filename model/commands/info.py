"""`bpe info`: describe a tokenizer, a model, token shards, or a preset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bpe.commands.describe import report_on, shards_rows, tokenizer_rows
from bpe.commands.inputs import open_tokenizer
from bpe.commands.options import examples, exclude_option, pattern_option, separator_option
from bpe.commands.terminal import amount, print_rows


@click.command()
@click.argument("name", metavar="NAME|FILE|DIRECTORY")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@pattern_option
@separator_option
@exclude_option
@click.option("--json", "as_json", is_flag=True, help="Print a tokenizer's numbers as JSON.")
@click.option("--report", metavar="DIR", help="Write a tokenizer's numbers, tables and plots into this directory.")
@click.option(
    "--batch", type=click.IntRange(min=1), default=1, metavar="N", help="Sequences that a model's KV cache is for."
)
@click.option(
    "--length", type=click.IntRange(min=1), metavar="N", help="Tokens in each of them.  [default: the model's context]"
)
@examples(
    "bpe info llama3",
    "bpe info my.json my.txt 'more/*.txt'",
    "bpe info my.json texts --report findings",
    "bpe info runs/tales",
    "bpe info llama3.2-1b",
    "bpe info llama3.1-70b --batch 8 --length 4096",
)
def info(
    name: str,
    texts: Sequence[str],
    pattern: str | None,
    separator: str | None,
    exclude: Sequence[str],
    as_json: bool,
    report: str | None,
    batch: int,
    length: int | None,
) -> None:
    """Describe a tokenizer, a model in any of its formats, token shards, or a model preset.

    Of a model it tells, without reading the weights, its parameters by part, what they take in each dtype, what the
    KV cache takes, and the arithmetic for a token.

    With texts (files, directories, globs, .jsonl, .gz, .xz, or - for stdin) it tells how a tokenizer does on each: how
    much of the text a token stands for as the vocabulary grows, tokens per word, which tokens are used. Special tokens
    in a text are text. What the columns mean stands in the report.md that --report writes; plots need the extra
    `report`.
    """
    from bpe.locate import SOURCES, locate

    path = locate(name) if name in SOURCES else Path(name)
    measured = bool(texts or as_json or report)
    if not measured and (path / "index.json").is_file():
        print_rows(shards_rows(path))
    elif not measured and _is_model(path):
        print_rows(_model_rows(path, batch, length))
    elif not measured and not path.exists() and (rows := _preset_rows(name, batch, length)):
        print_rows(rows)
    else:
        tokenizer = open_tokenizer(name, pattern)
        if not as_json:
            print_rows(tokenizer_rows(tokenizer))
        if measured:
            report_on(tokenizer, texts, separator, exclude, as_json, report)


def _is_model(path: Path) -> bool:
    """Whether this is a model rather than a tokenizer, as far as names tell."""
    if path.is_dir():
        return any((path / name).is_file() for name in ("params.json", "config.json", "adapter_config.json")) or any(
            path.glob("*.gguf")
        )
    return path.suffix in (".gguf", ".safetensors", ".pth") or path.name in ("params.json", "config.json")


def _model_rows(path: Path, batch: int, length: int | None) -> list[tuple[str, str]]:
    from model.checkpoint import format_of, open_checkpoint
    from model.loading import backend_of

    checkpoint = open_checkpoint(path)
    backend, reason = backend_of(checkpoint)
    stored = checkpoint.stored or str(checkpoint.dtype).removeprefix("torch.")
    return [
        ("model", str(path)),
        ("format", f"{format_of(path)}, weights in {stored}"),
        ("backend", f"{backend}: {reason}"),
        *_config_rows(checkpoint.config, batch, length),
    ]


def _preset_rows(name: str, batch: int, length: int | None) -> list[tuple[str, str]]:
    from model.config import PRESETS, ModelConfig

    if name not in PRESETS:
        return []
    return [("preset", name), *_config_rows(ModelConfig.preset(name), batch, length)]


def _config_rows(config: Any, batch: int, length: int | None) -> list[tuple[str, str]]:
    from bpe import InputError

    length = length or config.max_seq_len
    if length > config.max_seq_len:
        raise InputError(f"--length {length:,}, but the context of the model holds {config.max_seq_len:,} tokens")
    parts = ", ".join(f"{part.replace('_', '-')} {count:,}" for part, count in config.parameters().items())
    rope = f"RoPE theta {config.rope_theta:,.0f}" + (", scaled" if config.use_scaled_rope else "")
    biases = [name for name, there in (("wq, wk, wv", config.qkv_bias), ("wo", config.wo_bias)) if there]
    cached = f"{length:,} tokens" if batch == 1 else f"{batch:,} sequences of {length:,} tokens"
    return [
        (
            "shape",
            f"dim {config.dim:,}, {config.n_layers} layers, {config.n_heads} heads, {config.n_kv_heads} key-value heads"
            f" of {config.head_dim}, feed-forward {config.hidden_dim:,}"
            + (f", bias on {', '.join(biases)}" if biases else ""),
        ),
        ("context", f"{config.max_seq_len:,} tokens, {rope}"),
        ("vocabulary", f"{config.vocab_size:,}" + (", embeddings tied" if config.tied_embeddings else "")),
        ("parameters", f"{config.n_parameters:,}: {parts}"),
        (
            "weights",
            ", ".join(
                f"{amount(config.n_parameters * size)}B in {dtype}"
                for dtype, size in (("float32", 4), ("bfloat16", 2), ("int8", 1))
            ),
        ),
        (
            "KV cache",
            f"{amount(config.kv_cache_bytes(1, 1, 2))}B a token, {amount(config.kv_cache_bytes(batch, length, 2))}B"
            f" for {cached}, in bfloat16",
        ),
        (
            "prefill",
            f"{amount(config.prefill_flops(length))}FLOP for {length:,} tokens,"
            f" {amount(config.prefill_flops(length) / length)}FLOP a token",
        ),
        (
            "decode",
            f"{amount(config.decode_flops(0))}FLOP for the first token, {amount(config.decode_flops(length - 1))}FLOP"
            f" for token {length:,}",
        ),
    ]
