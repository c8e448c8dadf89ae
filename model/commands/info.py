"""`bpe info`: describe a tokenizer, a model, token shards, or a preset."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from bpe.commands.describe import boundary_rows, report_on, shards_rows, tokenizer_rows
from bpe.commands.inputs import exists, named_sources, open_tokenizer
from bpe.commands.options import (
    Command,
    corpus_text_option,
    examples,
    exclude_option,
    files_argument,
    group,
    pattern_option,
    progress_options,
    refuse_given,
    separator_option,
)
from bpe.commands.pictures import dark_option, format_option, picture_settings
from bpe.commands.terminal import amount, counted, print_rows
from model.commands.options import ignore_unknown_option
from model.commands.presets import PRESET_OR_NAME

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint
    from model.config import ModelConfig
    from model.vision_config import VisionConfig

_MODEL_FILES = ("params.json", "config.json", "adapter_config.json", "run.json")
_MODEL_SUFFIXES = (".gguf", ".safetensors", ".pth")


@click.command(cls=Command, needed={"NAME|FILE|DIRECTORY": ("name", "kernels")})
@click.argument("name", metavar="NAME|FILE|DIRECTORY", type=PRESET_OR_NAME, required=False)
@files_argument
@group(
    "Tokenizers",
    corpus_text_option,
    pattern_option,
    separator_option,
    exclude_option,
    click.option("--json", "as_json", is_flag=True, help="Print the statistics of a tokenizer as JSON."),
    click.option("--report", metavar="DIR", help="Directory to write a tokenizer's statistics, tables and plots to."),
    format_option,
    dark_option,
)
@group(
    "Models",
    click.option(
        "--batch", type=click.IntRange(min=1), default=1, metavar="N", help="Number of sequences in the KV cache."
    ),
    click.option(
        "--length",
        type=click.IntRange(min=1),
        metavar="N",
        help="Length of these sequences, in tokens.  [default: the model's context]",
    ),
    ignore_unknown_option,
)
@group(
    "This computer",
    click.option(
        "--kernels", is_flag=True, help="Print which kernels this processor runs, instead of describing a file."
    ),
)
@progress_options(with_events=False)
@examples(
    "bpe info llama3",
    "bpe info my.json my.txt 'more/*.txt'",
    "bpe info my.json texts --report findings --format svg,pdf",
    "bpe info runs/tales",
    "bpe info llama3.2-1b",
    "bpe info llama3.1-70b --batch 8 --length 4096",
    "bpe info --kernels",
)
def info(
    name: str | None,
    files: Sequence[str],
    texts: Sequence[str],
    pattern: str | None,
    separator: str | None,
    exclude: Sequence[str],
    as_json: bool,
    report: str | None,
    formats: Sequence[str],
    dark: bool,
    batch: int,
    length: int | None,
    ignore_unknown: bool,
    kernels: bool,
) -> None:
    """Describe a tokenizer, model, preset or shards.

    For a model, in any of its formats, prints the parameters of each part, the size of the weights and of the KV cache,
    and the arithmetic per token. The weights are not read.

    With files, directories, globs, - for stdin, or -c TEXT, measures a tokenizer on each text: bytes per token as the
    vocabulary grows, tokens per word, and which tokens are used. Special tokens in a text count as ordinary text. The
    report.md that --report writes explains the columns; plots need the extra `report`.
    """
    from bpe.hub.names import parse
    from bpe.locate import SOURCES, locate

    if kernels:
        refuse_given("with --kernels", *click.get_current_context().params.keys() - {"kernels"})
        print_rows(_kernel_rows())
        return
    assert name is not None
    sources = named_sources(files, texts)
    if not sources:
        refuse_given("without a text", "separator", "exclude")
    if not report:
        refuse_given("without --report DIR", "formats", "dark")
    measured = bool(sources or as_json or report)
    is_path = exists(name) or (name not in SOURCES and parse(name) is None)
    if is_path:
        _refuse_similar_preset(name)
        if measured:
            _refuse_preset(name)
    rows = [] if measured or is_path else _rows_of_hub(name, batch, length, ignore_unknown)
    if not rows:
        path = Path(name) if is_path else locate(name, "tokenizer" if measured else "any")
        rows = [] if measured else _rows(name, path, batch, length, ignore_unknown)
    if rows:
        refuse_given("on a model or on shards", "pattern")
        print_rows(rows)
        return
    refuse_given("on a tokenizer", "batch", "length", "ignore_unknown")
    tokenizer = open_tokenizer(name, pattern)
    pictures = picture_settings(report, formats, dark) if report else None
    if not as_json:
        print_rows(tokenizer_rows(tokenizer))
    if measured:
        report_on(tokenizer, sources, separator, exclude, as_json, report, pictures)


def _kernel_rows() -> list[tuple[str, str]]:
    """Return the processor, and the kernels of the tokenizer's core and of the model's core."""
    from bpe import _core as tokenizers
    from bpe.processor import kernel_line, processor_name
    from model import _core as models

    return [
        ("processor", processor_name()),
        ("tokenizers", kernel_line(tokenizers.chosen_kernel(), tokenizers.kernels(), "BPE_KERNEL")),
        ("models", kernel_line(models.chosen_kernel(), models.kernels(), "MODEL_KERNEL")),
    ]


def _rows_of_hub(name: str, batch: int, length: int | None, ignore_unknown: bool) -> list[tuple[str, str]]:
    """Return the description of a model of the hub whose weights are not in the cache; nothing for anything else.

    Only small files and the headers of the weights are downloaded.
    """
    from bpe import InputError
    from bpe.hub.names import is_in_folder, is_installed, parse
    from bpe.locate import SOURCES

    repository = parse(name)
    if name in SOURCES or repository is None or is_in_folder(repository) or not is_installed():
        return []
    from bpe.hub.outline import outline
    from bpe.hub.reasons import NotAvailableError
    from bpe.hub.repository import at_hand

    if at_hand(repository, "any") is not None:
        return []
    with TemporaryDirectory(prefix="bpe-info-") as folder:
        try:
            found = outline(repository, Path(folder))
        except NotAvailableError:  # `locate` looks for something incomplete in the cache, and reports the reason
            return []
        if found is None:
            return []
        files = counted(found.n_files, "file")
        size = f"{amount(found.n_bytes)}B in {files} on the hub, not downloaded; to download: bpe pull {name}"
        try:
            first, *others = _model_rows(found.path, batch, length, ignore_unknown)
        except InputError as error:
            raise InputError(str(error).replace(f"{folder}{os.sep}", f"{name}: ").replace(folder, name)) from None
    return [(first[0], name), ("size", size), *others]


def _refuse_similar_preset(name: str) -> None:
    """Refuse a name that is neither a path nor a preset, but similar to a preset."""
    from bpe.errors import InputError, did_you_mean
    from bpe.locate import SOURCES
    from model.config import PRESETS

    if name in PRESETS or exists(name) or not did_you_mean(name.lower(), PRESETS):
        return
    meant = did_you_mean(name.lower(), [*SOURCES, *PRESETS])
    raise InputError(f"{name}: no such file, and not a known name or a preset{meant}")


def _refuse_preset(name: str) -> None:
    """Refuse a preset where a tokenizer is expected."""
    from bpe.errors import InputError
    from model.config import PRESETS

    if name in PRESETS and not exists(name):
        raise InputError(
            f"{name}: a preset is the shape of a model and has no tokenizer; give a tokenizer, such as llama3, or"
            f" describe the preset alone (bpe info {name})"
        )


def _rows(name: str, path: Path, batch: int, length: int | None, ignore_unknown: bool) -> list[tuple[str, str]]:
    """Return the description of shards, a model or a preset; nothing if it is none of these."""
    if (path / "index.json").is_file():
        refuse_given("on shards", "batch", "length", "ignore_unknown")
        return shards_rows(path)
    if path.exists() and _is_model(path):
        return _model_rows(path, batch, length, ignore_unknown)
    return [] if path.exists() else _preset_rows(name, batch, length)


def _is_model(path: Path) -> bool:
    """Return whether the path is a model rather than a tokenizer, judging by names of files."""
    if path.is_dir():
        return any((path / name).is_file() for name in _MODEL_FILES) or any(path.glob("*.gguf"))
    return path.suffix in _MODEL_SUFFIXES or path.name in ("params.json", "config.json")


def _model_rows(path: Path, batch: int, length: int | None, ignore_unknown: bool) -> list[tuple[str, str]]:
    from model.checkpoint import format_of, open_checkpoint
    from model.loading import backend_of

    checkpoint = open_checkpoint(path, ignore_unknown)
    backend, reason = backend_of(checkpoint)
    stored = checkpoint.stored or checkpoint.dtype
    return [
        ("model", str(path)),
        ("format", f"{format_of(path)}, weights in {stored}"),
        ("backend", f"{backend}: {reason}"),
        *_boundary_rows(checkpoint),
        *_sampling_rows(checkpoint),
        *_config_rows(checkpoint.config, batch, length),
    ]


def _sampling_rows(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """How `bpe generate` and `bpe chat` sample by default; nothing for a model that does not ask for anything."""
    asked = ", ".join(f"{name} {'none' if value is None else value}" for name, value in checkpoint.sampling.items())
    unused = ", ".join(checkpoint.unused_settings)
    return [
        *([("sampling", f"{asked}, as the model asks")] if asked else []),
        *([("not used", f"{unused}, which the model asks for")] if unused else []),
    ]


def _boundary_rows(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """What begins and ends a text; nothing for a model whose tokenizer is missing or needs a split pattern."""
    from bpe import InputError
    from model.checkpoint.companions import read_tokenizer

    try:
        tokenizer = read_tokenizer(checkpoint)
    except InputError as error:
        return [("tokenizer", f"cannot be read: {error}")]
    try:
        checkpoint.config.check_tokens(tokenizer.n_vocab)
    except InputError as error:
        return [("tokenizer", f"cannot be used: {error}"), *boundary_rows(tokenizer)]
    return boundary_rows(tokenizer)


def _preset_rows(name: str, batch: int, length: int | None) -> list[tuple[str, str]]:
    from model.config import PRESETS, ModelConfig

    if name not in PRESETS:
        return []
    return [("preset", name), *_config_rows(ModelConfig.preset(name), batch, length)]


def _config_rows(config: ModelConfig, batch: int, length: int | None) -> list[tuple[str, str]]:
    """Return labels and values for the shape of a model and what it costs."""
    from bpe import InputError

    length = length or config.max_seq_len
    if length > config.max_seq_len:
        raise InputError(f"--length is {length:,}, but the model's context is {config.max_seq_len:,} tokens")
    parts = ", ".join(f"{part.replace('_', '-')} {count:,}" for part, count in config.parameters().items())
    rope = f"RoPE theta {config.rope_theta:,.0f}" + (
        f", scaled ({config.rope_scaling})" if config.rope_scaling != "none" else ""
    )
    cached = f"{length:,} tokens" if batch == 1 else f"{batch:,} sequences of {length:,} tokens"
    token_cache, cache = (amount(config.kv_cache_bytes(*size, 2)) for size in ((1, 1), (batch, length)))
    prefill, first, last = config.prefill_flops(length), config.decode_flops(0), config.decode_flops(length - 1)
    return [
        ("shape", _shape(config)),
        *([("images", _images(config.vision, config))] if config.vision is not None else []),
        ("context", f"{config.max_seq_len:,} tokens, {rope}"),
        *_relatives_rows(config),
        ("vocabulary", f"{config.vocab_size:,}" + (", embeddings tied" if config.tied_embeddings else "")),
        ("parameters", f"{config.n_parameters:,}: {parts}"),
        (
            "weights",
            ", ".join(
                f"{amount(config.n_parameters * size)}B in {dtype}"
                for dtype, size in (("float32", 4), ("bfloat16", 2), ("int8", 1))
            ),
        ),
        ("KV cache", f"{token_cache}B a token, {cache}B for {cached}, in bfloat16"),
        *_heads_rows(config, batch, length),
        ("prefill", f"{amount(prefill)}FLOP for {length:,} tokens, {amount(prefill / length)}FLOP a token"),
        ("decode", f"{amount(first)}FLOP for the first token, {amount(last)}FLOP for token {length:,}"),
    ]


def _heads_rows(config: ModelConfig, batch: int, length: int) -> list[tuple[str, str]]:
    """Return the size of the KV cache with a key-value head for each head, as it is, and with a single one."""
    counts = {config.n_kv_heads: "grouped", 1: "multi-query", config.n_heads: "multi-head"}
    if len(counts) == 1:
        return []
    rows = []
    for count in sorted(counts, reverse=True):
        other = replace(config, n_kv_heads=count)
        token_cache, cache = (amount(other.kv_cache_bytes(*size, 2)) for size in ((1, 1), (batch, length)))
        own = ", as here" if count == config.n_kv_heads else ""
        heads = counted(count, "key-value head")
        rows.append(("", f"{counts[count]} ({heads}): {token_cache}B a token, {cache}B{own}"))
    return rows


def _relatives_rows(config: ModelConfig) -> list[tuple[str, str]]:
    """Return what only relatives of Llama have."""
    positions = [
        *([f"{config.rotary_dim} of {config.head_dim} numbers of a head rotated"] if config.rotary_dim else []),
        *([f"none in {_layers(config, config.unrotated_layers)}"] if config.unrotated_layers else []),
        *([f"theta {config.local_rope_theta:,.0f} in layers with a window"] if config.local_rope_theta else []),
    ]
    windows = sorted({window for window in config.windows if window})
    attention = [
        *(
            f"window of {window:,} tokens in"
            f" {_layers(config, [layer for layer, other in enumerate(config.windows) if other == window])}"
            for window in windows
        ),
        *([f"scores times {config.attention_multiplier:g}"] if config.attention_multiplier else []),
        *([f"scores capped at {config.attention_softcap:g}"] if config.attention_softcap else []),
    ]
    norms = [
        *(["before and after attention and feed-forward"] if config.pre_norm and config.post_norm else []),
        *([] if config.pre_norm else ["after attention and feed-forward, not before"]),
        *({"head": ["of each query and key head"], "all": ["of all queries and all keys"]}.get(config.qk_norm, [])),
        *(["times 1 + weight"] if config.norm_offset else []),
    ]
    scales = [
        *([f"embeddings times {config.embedding_multiplier:g}"] if config.embedding_multiplier != 1 else []),
        *([f"changes of the stream times {config.residual_multiplier:g}"] if config.residual_multiplier != 1 else []),
        *([f"logits over {config.logits_scaling:g}"] if config.logits_scaling != 1 else []),
        *([f"logits capped at {config.logits_softcap:g}"] if config.logits_softcap else []),
    ]
    rows = {"attention": attention, "positions": positions, "experts": _experts(config), "norms": norms}
    return [(label, ", ".join(parts)) for label, parts in {**rows, "scales": scales}.items() if parts]


def _layers(config: ModelConfig, layers: Collection[int]) -> str:
    return "all layers" if len(layers) == config.n_layers else f"{len(layers)} of {config.n_layers} layers"


def _experts(config: ModelConfig) -> list[str]:
    """Return the experts of a layer, and how many parameters a token meets: all but those of the other experts."""
    routed = [layer for layer in range(config.n_layers) if config.has_experts(layer)]
    if not routed:
        return []
    chosen = config.n_experts_per_token
    fewer = replace(config, n_experts=chosen).n_parameters
    active = fewer + len(routed) * (config.n_experts - chosen) * config.dim  # the router is read whole
    shared = "" if config.normalize_experts else ", their shares not normalised"
    return [
        f"{config.n_experts} with feed-forward {config.expert_size:,} in {_layers(config, routed)}",
        f"{chosen} for a token{shared}",
        f"{active:,} parameters active for a token",
    ]


def _images(vision: VisionConfig, config: ModelConfig) -> str:
    return (
        f"up to {vision.max_tiles} tiles of {vision.image_size} x {vision.image_size} pixels, {vision.n_patches:,}"
        f" vectors each; encoder dim {vision.dim:,}, {vision.n_layers} + {vision.n_global_layers} layers; read by"
        f" {len(config.cross_attention_layers)} of the {config.n_layers} layers"
    )


def _shape(config: ModelConfig) -> str:
    given = {"wq, wk, wv": config.qkv_bias, "wo": config.wo_bias, "w1, w2, w3": config.ffn_bias}
    biases = [name for name, has_bias in given.items() if has_bias]
    with_biases = f", bias on {', '.join(biases)}" if biases else ""
    activation = {"silu": "", "gelu": " with GELU", "gelu_tanh": " with GELU (tanh)"}[config.activation]
    return (
        f"dim {config.dim:,}, {config.n_layers} layers, {config.n_heads} heads,"
        f" {counted(config.n_kv_heads, 'key-value head')} of {config.head_dim},"
        f" feed-forward {config.hidden_dim:,}{activation}{with_biases}"
    )
