"""The model that fine-tuning starts from, and the form in which the result is saved."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from pathlib import Path

import torch

from bpe.chat import ChatFormat, chat_format
from bpe.errors import InputError
from bpe.locate import locate
from model.checkpoint import WRITABLE_FORMATS, format_of, open_adapter, open_checkpoint
from model.checkpoint.adapter import CONFIG as ADAPTER
from model.checkpoint.adapter import write_adapter
from model.checkpoint.assemble import assemble, fingerprint
from model.checkpoint.bpe_llama import PARAMS
from model.checkpoint.companions import fitting_tokenizer
from model.checkpoint.config_json import config_json
from model.checkpoint.huggingface import CONFIG
from model.checkpoint.opened import Checkpoint
from model.lora import TARGETS, Adapter, LoraConfig, adapter_of, add_lora, merge_lora, set_adapter
from model.training.dialogs import PathLike
from model.training.finetune_settings import FinetuneConfig
from model.transformer import Transformer


class BaseModel:
    """A model to fine-tune, its tokenizer and its chat format.

    Attributes:
        checkpoint: The opened model file.
        tokenizer: Its tokenizer.
        config: Settings of fine-tuning. For an adapter, `config.lora` has the adapter's settings.
        format: Format in which a fine-tuned model is saved.
    """

    def __init__(self, name: PathLike, run: Path, config: FinetuneConfig, ignore_unknown: bool = False) -> None:
        """Open a model.

        Args:
            name: Path or name of the model, as `model.load` takes it. Fine-tuning continues an adapter.
            run: The run directory, which must not be the model's.
            config: Settings of fine-tuning.
            ignore_unknown: As for `model.load`.

        Raises:
            InputError: When the model cannot be read, or its fine-tuned form cannot be saved.
        """
        self.name, self.config = os.fspath(name), config
        path = locate(self.name, "model")
        self._adapter: Adapter | None = None
        if format_of(path) == "adapter":
            parts = open_adapter(path, ignore_unknown)
            self.config = config = dataclasses.replace(config, lora=_continued(path, config.lora, parts.lora))
            self.checkpoint, self.name, self._adapter = parts.base, parts.base_name, parts.adapter
        else:
            self.checkpoint = open_checkpoint(path, ignore_unknown)
        if self.checkpoint.config.vision is not None:
            raise InputError(f"{path}: a model that reads images cannot be fine-tuned here; use a model of text")
        self.tokenizer = fitting_tokenizer(self.checkpoint)
        directory = path if path.is_dir() else path.parent
        if run.exists() and run.resolve() == directory.resolve():
            raise InputError(f"{run}: holds the model that is to be fine-tuned; use another directory for the run")
        found = format_of(path)
        self.format = "bpe-llama" if found == "bpe-llama" else "huggingface"
        if not config.keeps_adapter and self.format == "huggingface":
            config_json(self.checkpoint.config, torch.float32)  # raises for what the format cannot express

    def model(self, seed: int) -> Transformer:
        """Load the model, in float32 on the CPU, with LoRA matrices where the settings say so.

        The matrices are those of the adapter that fine-tuning continues, or new ones.

        Args:
            seed: Seed of new LoRA matrices.
        """
        model = assemble(self.checkpoint, torch.float32, torch.device("cpu"))
        if self.config.lora is not None:
            add_lora(model, self.config.lora, torch.Generator().manual_seed(seed))
        if self._adapter is not None:
            set_adapter(model, self._adapter)
        return model

    @functools.cached_property
    def chat_format(self) -> ChatFormat:
        """Its chat format.

        Raises:
            InputError: When the model has none.
        """
        return chat_format(self.checkpoint.tokenizer, self.tokenizer)

    @functools.cached_property
    def start(self) -> str:
        """Hash of the weights that training starts from, those of an adapter included, in hexadecimal."""
        if self._adapter is None:
            return self.fingerprint
        digest = hashlib.sha256(self.fingerprint.encode())
        for name, (a, b) in sorted(self._adapter.items()):
            digest.update(name.encode() + a.numpy().tobytes() + b.numpy().tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the model's own weights, in hexadecimal."""
        return fingerprint(self.checkpoint)

    def save(self, directory: Path, model: Transformer) -> None:
        """Save an adapter or a model, and delete what would make another model of the directory."""
        for name in (ADAPTER, PARAMS, CONFIG):
            (directory / name).unlink(missing_ok=True)
        if self.config.lora is not None and self.config.keeps_adapter:
            write_adapter(directory, self.checkpoint, self.name, self.config.lora, adapter_of(model), self.fingerprint)
            return
        merge_lora(model)
        WRITABLE_FORMATS[self.format].write(trained(self.checkpoint, directory, model), directory)


def trained(checkpoint: Checkpoint, directory: Path, model: Transformer) -> Checkpoint:
    """Return a checkpoint with the weights of a model that started from it, to be written to a directory."""
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    return dataclasses.replace(
        checkpoint,
        dtype="float32",
        source=directory,
        computed=lambda dtype: weights.items(),
        name_of=str,
        stored="",
        kinds={},
        weights=None,
    )


def _continued(path: Path, given: LoraConfig | None, found: LoraConfig) -> LoraConfig:
    """Return the settings of an adapter to continue, with the given dropout if there is one.

    Raises:
        InputError: When settings are given that the adapter does not have.
    """
    if given is None:
        return found
    for what, wanted, own in (
        ("rank", given.rank, found.rank),
        ("alpha", given.scale * given.rank if given.alpha is not None else None, found.scale * found.rank),
        ("targets", {*given.targets} if {*given.targets} != {*TARGETS} else None, {*found.targets}),
    ):
        if wanted is not None and wanted != own:
            shown = [", ".join(sorted(each)) if isinstance(each, set) else f"{each:g}" for each in (wanted, own)]
            raise InputError(
                f"{path}: the LoRA {what} is {shown[0]}, but that of this adapter is {shown[1]}; leave it out to train"
                " the adapter further, or merge the adapter into its base first (bpe convert)"
            )
    return dataclasses.replace(found, dropout=given.dropout or found.dropout)
