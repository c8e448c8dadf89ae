"""The model that fine-tuning starts from, and the form in which the result is saved."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path

import torch

from bpe.chat import chat_format
from bpe.errors import InputError
from bpe.locate import locate
from model.checkpoint import WRITABLE_FORMATS, format_of, open_checkpoint
from model.checkpoint.adapter import CONFIG as ADAPTER
from model.checkpoint.adapter import write_adapter
from model.checkpoint.assemble import assemble, fingerprint
from model.checkpoint.bpe_llama import PARAMS
from model.checkpoint.companions import read_tokenizer
from model.checkpoint.huggingface import CONFIG, config_json
from model.lora import adapter_of, add_lora, merge_lora
from model.training.dialogs import PathLike
from model.training.finetune_settings import FinetuneConfig
from model.transformer import Transformer


class BaseModel:
    """A model to fine-tune, its tokenizer and its chat format.

    Attributes:
        checkpoint: The opened model file.
        tokenizer: Its tokenizer.
        chat_format: Its chat format.
        config: Settings of fine-tuning.
        format: Format in which a fine-tuned model is saved.
    """

    def __init__(self, name: PathLike, run: Path, config: FinetuneConfig) -> None:
        """Open a model.

        Args:
            name: Path or name of the model, as `model.load` takes it.
            run: The run directory, which must not be the model's.
            config: Settings of fine-tuning.

        Raises:
            InputError: When the model cannot be read, or its fine-tuned form cannot be saved.
        """
        self.name, self.config = os.fspath(name), config
        path = locate(self.name, "model")
        self.checkpoint = open_checkpoint(path)
        self.tokenizer = read_tokenizer(self.checkpoint)
        self.chat_format = chat_format(self.checkpoint.tokenizer, self.tokenizer)
        directory = path if path.is_dir() else path.parent
        if run.exists() and run.resolve() == directory.resolve():
            raise InputError(f"{run}: holds the model that is to be fine-tuned; use another directory for the run")
        found = format_of(path)
        self.format = "bpe-llama" if found == "bpe-llama" else "huggingface"
        if config.keeps_adapter and found == "adapter":
            raise InputError(
                f"{path}: an adapter cannot be trained on top of an adapter; "
                "set merge, or merge this adapter into its base first (bpe convert)"
            )
        if not config.keeps_adapter and self.format == "huggingface":
            config_json(self.checkpoint.config, torch.float32)  # raises for what the format cannot express

    def model(self, seed: int) -> Transformer:
        """Load the model, in float32 on the CPU, with new LoRA matrices where the settings say so.

        Args:
            seed: Seed of the LoRA matrices.
        """
        model = assemble(self.checkpoint, torch.float32, torch.device("cpu"))
        if self.config.lora is not None:
            add_lora(model, self.config.lora, torch.Generator().manual_seed(seed))
        return model

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the weights, in hexadecimal."""
        return fingerprint(self.checkpoint)

    def save(self, directory: Path, model: Transformer) -> None:
        """Save an adapter or a model, and delete what would make another model of the directory."""
        for name in (ADAPTER, PARAMS, CONFIG):
            (directory / name).unlink(missing_ok=True)
        if self.config.lora is not None and self.config.keeps_adapter:
            write_adapter(directory, self.checkpoint, self.name, self.config.lora, adapter_of(model), self.fingerprint)
            return
        merge_lora(model)
        weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
        learned = dataclasses.replace(
            self.checkpoint,
            dtype=torch.float32,
            source=directory,
            tensors=lambda dtype: weights.items(),
            name_of=str,
            stored="",
            kinds={},
            rows=None,
        )
        WRITABLE_FORMATS[self.format].write(learned, directory)
