"""PEFT's LoRA adapters: a directory that names its base model and holds two matrices, A and B, for each adapted matrix.

An adapter opens as the base model with the adapter merged into it. The rows of B are in transformers' order.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpe import Tokenizer
from bpe.errors import InputError
from bpe.files import write_json
from bpe.formats import tokenizer_files
from bpe.locate import locate
from model.checkpoint.companions import complete_for_transformers, read_companions, read_tokenizer, write_companions
from model.checkpoint.huggingface import joined_parts, names_of
from model.checkpoint.names import halved, is_rotated
from model.checkpoint.opened import Checkpoint, read_json
from model.checkpoint.tensor_files import read_header, write_tensors
from model.checkpoint.weights import expected_shapes
from model.torch_needed import require_torch

if TYPE_CHECKING:
    from model.lora import Adapter, LoraConfig

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
DESCRIPTION = f"{CONFIG} with {WEIGHTS}"
BASE = "base_model_name_or_path"
_LEARNED_ON = "base_weights_sha256"
_OF_MODELS = ("generation_config.json", "config.json")
"""The files that say what ends a text that a model generates."""

# Keys that do not change the result: the names of the tensors in the file say which matrices are adapted.
_HARMLESS = {
    "peft_type", "task_type", "auto_mapping", "peft_version", "revision", "inference_mode", "target_modules",
    "exclude_modules", "lora_dropout", "layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size",
    "ensure_weight_tying", BASE,
    # read with the tensors
    "use_rslora", "use_dora", "lora_alpha", "r", "rank_pattern", "alpha_pattern", "modules_to_save",
    "trainable_token_indices",
}  # fmt: skip
_EXPERTS = "target_parameters"  # LoRA on the stacked experts of transformers 5
_NEUTRAL = {"bias": ("none", "all", "lora_only"), "init_lora_weights": (True, "gaussian", "orthogonal", "eva")}
"""Supported values besides null, false and empty: they leave the weights of the base unchanged, or are in the file."""


def recognises(path: Path) -> bool:
    """Return whether the path is the directory of an adapter, or one of its two files."""
    if path.is_dir():
        return (path / CONFIG).is_file()
    return path.name in (CONFIG, WEIGHTS) and (path.parent / CONFIG).is_file()


def open_checkpoint(path: Path, open_base: Callable[[Path], Checkpoint]) -> Checkpoint:
    """Open the base of an adapter with the adapter merged into it, tensor by tensor as they are read.

    The base is searched for as a path, then as a path within the adapter's directory, then as a known name. A tokenizer
    in the adapter's directory takes precedence over the tokenizer of the base.

    Warns if the adapter file records the hash of the weights that it was trained on, as files of `write_adapter` do,
    and the base has other weights. Quantized weights count as other weights.

    Args:
        path: The directory of the adapter, or a file in it.
        open_base: Opens the base, which may have any other format.

    Raises:
        InputError: When the base is not found, the adapter is not a LoRA adapter or does not fit its base, or its
            configuration is not supported.
    """
    directory = path if path.is_dir() else path.parent
    require_torch(f"{directory}: merging an adapter")
    from model.checkpoint.adapter_tensors import is_tied_after, merged_tensors, read_changes, require_both

    values = _checked_config(directory / CONFIG)
    base = _base(directory, open_base)
    changes, size = read_changes(directory / WEIGHTS, base, values)
    if size != base.config.vocab_size:
        require_both(directory / WEIGHTS, changes, base)
    unties = base.config.tied_embeddings and not is_tied_after(changes)
    learned_on = read_header(directory / WEIGHTS).notes.get(_LEARNED_ON)

    # The stored weights are those of the base without the adapter, so no reader may use them.
    tensors = merged_tensors(directory, base, changes, unties, learned_on)
    own: dict[str, Any] = {"weights": None, "kinds": {}, "stored": "", "computed": tensors}
    if unties or size != base.config.vocab_size:
        tied = base.config.tied_embeddings and not unties
        own["config"] = dataclasses.replace(base.config, vocab_size=size, tied_embeddings=tied)
    if tokenizer_files([path.name for path in directory.iterdir()]):
        own |= {"tokenizer": directory, "make_tokenizer": lambda: _tokenizer(directory, base)}
        own |= {key: value for key, value in read_companions(directory).items() if value}
    return dataclasses.replace(base, **own)


@dataclasses.dataclass(frozen=True)
class Parts:
    """A LoRA adapter beside its base, to train it further.

    Attributes:
        base: The base, with the tokenizer and the companions of the adapter.
        base_name: The path or name of the base.
        lora: The settings of the adapter.
        adapter: Its matrices, under Meta's names.
    """

    base: Checkpoint
    base_name: str
    lora: LoraConfig
    adapter: Adapter


def open_parts(path: Path, open_base: Callable[[Path], Checkpoint]) -> Parts:
    """Open an adapter and its base as two.

    Args:
        path: The directory of the adapter, or a file in it.
        open_base: Opens the base.

    Raises:
        InputError: As `open_checkpoint` does, and when the adapter is not LoRA of one rank and scale on the same
            matrices of all layers, as `write_adapter` writes.
    """
    from model.checkpoint.adapter_tensors import read_changes
    from model.lora import TARGETS, LoraConfig

    directory = path if path.is_dir() else path.parent
    config = directory / CONFIG
    values = _checked_config(config)
    whole, base = open_checkpoint(path, open_base), _base(directory, open_base)
    changes, _ = read_changes(directory / WEIGHTS, base, values)
    adapter: Adapter = {}
    for name, change in changes.items():
        target = name.removesuffix(".weight")
        if change.parts().keys() != {"a", "b"} or target.rpartition(".")[2] not in TARGETS:
            raise InputError(
                f"{config}: it changes {base.name_of(name)} by more than LoRA matrices of a layer; {_MERGE}"
            )
        assert change.a is not None and change.b is not None
        adapter[target] = change.a.float(), change.b.float()
    targets = tuple(name for name in TARGETS if any(key.endswith(f".{name}") for key in adapter))
    shapes = {(len(a), changes[f"{name}.weight"].scale) for name, (a, _) in adapter.items()}
    adaptable = [name.removesuffix(".weight").rpartition(".")[2] for name in expected_shapes(base.config)]
    if len(shapes) != 1 or len(adapter) != sum(name in targets for name in adaptable):
        raise InputError(f"{config}: the layers do not all have LoRA matrices of the same rank and scale; {_MERGE}")
    ((rank, scale),) = shapes
    lora = LoraConfig(rank, scale * rank, targets, float(values.get("lora_dropout") or 0))
    name = values[BASE]
    inner = directory / name
    # The tensors are those of the base, everything else is as the adapter is opened.
    own = {field: getattr(base, field) for field in ("weights", "kinds", "stored", "computed", "config")}
    return Parts(
        dataclasses.replace(whole, **own),
        str(inner) if inner.exists() and not Path(name).exists() else name,
        lora,
        adapter,
    )


_MERGE = "merge it into its base first (bpe convert), and fine-tune that model"


def _tokenizer(directory: Path, base: Checkpoint) -> Tokenizer:
    """The tokenizer of the adapter, with the ends that the base names if the adapter's own files name none.

    PEFT and transformers write the files of the tokenizer beside an adapter, but not generation_config.json, and
    generate with the generation_config.json of the base.
    """
    own = Tokenizer.from_file(directory)
    said = own.vocabulary.boundaries
    of_base = read_tokenizer(base)
    ends = of_base.vocabulary.boundaries
    if said.eos_from in _OF_MODELS or ends.eos_from not in _OF_MODELS:
        return own
    if any(_token(own, id) != _token(of_base, id) for id in ends.eos_ids):
        return own  # the adapter has other tokens
    ends_of_base = said._replace(eos_ids=ends.eos_ids, eos_from=f"{ends.eos_from} of the base")
    return Tokenizer.from_vocabulary(own.vocabulary.with_boundaries(ends_of_base))


def _token(tokenizer: Tokenizer, id: int) -> bytes | None:
    try:
        return tokenizer.decode_single_token_bytes(id)
    except KeyError:
        return None


def write_adapter(
    directory: Path, base: Checkpoint, base_name: str, config: LoraConfig, adapter: Adapter, learned_on: str
) -> None:
    """Write an adapter that `open_checkpoint` and PEFT read, with the tokenizer and chat template of its base.

    Args:
        directory: The directory to write.
        base: The base model.
        base_name: The path or known name by which the base is found again.
        config: The LoRA settings of training.
        adapter: The trained matrices, under Meta's names.
        learned_on: The `fingerprint` of the base. It is written to the header of the weights, which PEFT ignores; for
            an unknown key in adapter_config.json, PEFT asks to be upgraded.
    """
    import torch

    from model.checkpoint.adapter_tensors import PREFIX
    from model.checkpoint.assemble import bytes_of

    write_companions(base, directory)
    complete_for_transformers(base, directory)
    matrices, patterns = _written(base, config, adapter)
    tensors = {}
    for module, (a, b) in matrices.items():
        tensors[f"{PREFIX}{module}.lora_A.weight"], tensors[f"{PREFIX}{module}.lora_B.weight"] = a, b
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    content = ((name, bytes_of(tensor.cpu(), torch.float32)) for name, tensor in tensors.items())
    write_tensors({directory / WEIGHTS: shapes}, "float32", content, {_LEARNED_ON: learned_on})
    write_json(
        directory / CONFIG,
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            BASE: os.path.abspath(base_name) if os.path.exists(base_name) else base_name,
            "r": config.rank,
            "lora_alpha": _plain(config.scale * config.rank),
            "lora_dropout": config.dropout,
            "target_modules": sorted({name.split(".")[-3] for name in tensors}),
            "bias": "none",
            "fan_in_fan_out": False,
            "init_lora_weights": True,
            "inference_mode": True,
            **patterns,
        },
    )


def _written(base: Checkpoint, config: LoraConfig, adapter: Adapter) -> tuple[Adapter, dict[str, Any]]:
    """Return the matrices of an adapter by the names of transformers' modules, and the keys that they need.

    The matrices of what the base stores as one (Phi-3's queries, keys and values) become one pair, whose rank is the
    sum of theirs.
    """
    from model.checkpoint.adapter_tensors import joined_matrices

    names, shapes = names_of(base.config), expected_shapes(base.config)
    theirs: Adapter = {}
    ranks: dict[str, int] = {}
    adapter = {
        name: (a, halved(b, base.config) if is_rotated(f"{name}.weight") else b) for name, (a, b) in adapter.items()
    }
    for name in adapter:
        whole = base.name_of(f"{name}.weight")
        parts = [part.removesuffix(".weight") for part in joined_parts(whole, base.config)]
        if not whole.endswith(".weight") or not parts:
            theirs[names.from_meta(f"{name}.weight").removesuffix(".weight")] = adapter[name]
            continue
        rows = [shapes[f"{part}.weight"][0] for part in parts]
        module = whole.removesuffix(".weight")
        theirs[module] = joined_matrices([adapter.get(part) for part in parts], rows)
        ranks[module.rpartition(".")[2]] = len(parts) * config.rank
    alphas = {module: _plain(config.scale * rank) for module, rank in ranks.items()}
    return theirs, {"rank_pattern": ranks, "alpha_pattern": alphas} if ranks else {}


def _plain(number: float) -> int | float:
    return int(number) if number == int(number) else number


def _checked_config(path: Path) -> dict[str, Any]:
    """Return the content of an adapter_config.json; raise InputError if a key has a value that is not supported."""
    values = read_json(path)
    if values.get("peft_type") != "LORA":
        raise InputError(f"{path}: peft_type is {values.get('peft_type')!r}; only 'LORA' is supported")
    for key, value in values.items():
        if value and key not in _HARMLESS and value not in _NEUTRAL.get(key, ()):
            remedy = "; merge the adapter in PEFT (merge_and_unload), and save that model" if key == _EXPERTS else ""
            raise InputError(f"{path}: {key} is {json.dumps(value)}, which is not supported{remedy}")
    rank, alpha = values.get("r"), values.get("lora_alpha")
    if not (_is_rank(rank) and _is_alpha(alpha)):
        raise InputError(f"{path}: r is {rank!r} and lora_alpha is {alpha!r}; expected positive numbers")
    for key, fits in (("rank_pattern", _is_rank), ("alpha_pattern", _is_alpha)):
        patterns = values.get(key) or {}
        if not isinstance(patterns, dict) or not all(map(fits, patterns.values())):
            raise InputError(f"{path}: {key} is {json.dumps(patterns)}; expected positive numbers by patterns of names")
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError(f"{path}: {key}: {pattern!r} is not a regular expression ({error})") from None
    modules = values.get("modules_to_save") or []
    if not isinstance(modules, list) or not all(isinstance(name, str) for name in modules):
        raise InputError(f"{path}: modules_to_save is {json.dumps(modules)}; expected a list of names")
    return values


def _is_rank(value: object) -> bool:
    return type(value) is int and value > 0


def _is_alpha(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def _base(directory: Path, open_base: Callable[[Path], Checkpoint]) -> Checkpoint:
    config = directory / CONFIG
    name = read_json(config).get(BASE)
    if not isinstance(name, str) or not name:
        raise InputError(f"{config}: {BASE} is {name!r}; set it to the path or name of the base model")
    found = [path for path in (Path(name), directory / name) if path.exists()]
    try:
        place = found[0] if found else locate(name, "model")
    except InputError as error:
        raise InputError(f"{config}: base model not found ({error}); set {BASE} to its path or name") from None
    if recognises(place):
        raise InputError(f"{config}: the base {place} is itself an adapter; merge that one first (bpe convert)")
    return open_base(place)
