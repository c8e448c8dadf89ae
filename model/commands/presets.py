"""The option that takes a preset: its completion, and the list of presets in its help."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import click

from bpe.commands.completers import CompletedText, named_or_files, tokenizer_names
from bpe.commands.terminal import amount


def _names(ctx: click.Context) -> Iterator[tuple[str, str]]:
    from model.config import PRESETS, ModelConfig

    return ((name, f"{amount(ModelConfig.preset(name).n_parameters)} parameters") for name in PRESETS)


PRESET = CompletedText(named_or_files(_names, (".json",)))
"""The name of a preset, or a file with the configuration of a model."""


PRESET_OR_NAME = CompletedText(
    named_or_files(lambda context: chain(tokenizer_names(context), _names(context)), (".json", ".model", ".gguf"))
)
"""The name of a tokenizer, a model or a preset, or a file of one."""


class PresetOption(click.Option):
    """An option that takes a preset, and lists the presets with their sizes in the help."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        return record and (record[0], f"{record[1]}  {_presets_by_size()}")


def _presets_by_size() -> str:
    """Return the names of the presets with their numbers of parameters, the smallest first."""
    from model.config import PRESETS, ModelConfig

    sizes = sorted((ModelConfig.preset(name).n_parameters, name) for name in PRESETS)
    listed = ", ".join(f"{name} {amount(size).replace(' ', '').replace('G', 'B')}" for size, name in sizes)
    return f"Presets, with their numbers of parameters: {listed}."
