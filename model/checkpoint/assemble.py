"""What all formats share: a checkpoint that was opened, its tensors checked one by one, and the model made of them."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bpe.errors import InputError
from model.config import ModelConfig
from model.cpu import widen
from model.transformer import Transformer

if TYPE_CHECKING:
    from bpe import Tokenizer

EMBEDDINGS = "tok_embeddings.weight"
TIED = "output.weight"  # the same matrix as tok_embeddings.weight, where embeddings are tied
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was opened, of which only what describes it has been read."""

    config: ModelConfig
    dtype: torch.dtype
    """The weights' own; bfloat16 where they are quantized. When it is written, the one that is written."""
    source: Path
    """The file, or the directory, that messages about the weights name."""
    tokenizer: Path
    """What `Tokenizer.from_file` reads."""
    tensors: Callable[[torch.dtype], Iterable[tuple[str, Tensor]]]
    """The tensors in turn, given the dtype that they are wanted in, which only those that have to be computed
    need have. They are under Meta's names and in Meta's order of queries and keys: mapped, or made when
    their turn comes and not kept."""
    chat_template: str | None = None
    """The jinja template that dialogs are written with, where the checkpoint has one."""
    bos: int | None = None
    """The id of the token that begins a text, where the checkpoint names one; some have it and don't use it."""
    eos: tuple[int, ...] = ()
    """The ids that end what the model writes, where the checkpoint names them."""
    name_of: Callable[[str], str] = str
    """What the file calls the tensor of this name of Meta's."""
    stored: str = ""
    """How the file holds the weights, where dtype does not say it, such as "Q4_1, F32"."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """The type of each tensor by its name, such as "Q4_1", where the file names types."""
    rows: Callable[[], Iterable[tuple[str, tuple[int, ...], memoryview]]] | None = None
    """Those tensors in turn as they are stored, with their shapes: the bytes of their rows."""
    make_tokenizer: Callable[[], Tokenizer] | None = None
    """Makes the tokenizer of what has been read already, where `tokenizer` is the file of the weights."""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); it may be truncated") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values


def named(path: Path, config_of: Callable[[dict[str, Any]], ModelConfig], values: dict[str, Any]) -> ModelConfig:
    """The configuration of `values`; an error names the file that they stand in."""
    try:
        return config_of(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_params(path: Path) -> ModelConfig:
    """The configuration in a params.json."""
    return named(path, ModelConfig.from_params, read_json(path))


_DRAWING = (nn.init.normal_, nn.init.kaiming_uniform_, nn.init.uniform_, Tensor.normal_, Tensor.uniform_)


class _WithoutStartValues(TorchFunctionMode):
    """Leaves out what would be overwritten. To draw numbers on the meta device, torch imports 800 modules, 74 MB."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return None if func in _DRAWING else func(*args, **(kwargs or {}))


def shell(config: ModelConfig) -> Transformer:
    """A model whose weights have shapes, but neither values nor memory."""
    with torch.device("meta"), _WithoutStartValues():
        return Transformer(config)


def expected_shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """Names and shapes of a model's tensors, in the model's order; tied embeddings once."""
    return dict(_shapes(config))


@functools.lru_cache(maxsize=1)  # to load a model they are asked for several times, at 20 ms
def _shapes(config: ModelConfig) -> dict[str, torch.Size]:
    shapes = {name: tensor.shape for name, tensor in shell(config).state_dict().items()}
    if config.tied_embeddings:
        del shapes[TIED]
    return shapes


def checked_tensors(
    checkpoint: Checkpoint, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of `expected_shapes` once, in the order of the file, in dtype (None: the checkpoint's) on device.

    Raises InputError, naming tensor and source, where one is missing, unknown, misshapen, there twice, of no
    floating-point dtype, or holds a number that is not finite, in the file or in dtype; and where an output matrix
    differs from the embeddings that it is tied to. What is missing turns out at the end.
    """
    config, source, dtype = checkpoint.config, checkpoint.source, dtype or checkpoint.dtype
    expected = expected_shapes(config)
    tied = {EMBEDDINGS: expected[EMBEDDINGS], TIED: expected[EMBEDDINGS]} if config.tied_embeddings else {}
    missing = dict.fromkeys(expected)
    seen: set[str] = set()
    twin: Tensor | None = None
    for name, tensor in checkpoint.tensors(dtype):
        theirs = checkpoint.name_of(name)
        shape = tied.get(name) or expected.get(name)
        if shape is None:
            raise InputError(f"{source}: a tensor {theirs!r} that a model of this configuration does not have")
        if name in seen:
            raise InputError(f"{source}: two tensors {theirs!r}")
        if tensor.shape != shape:
            raise InputError(f"{source}: {theirs} has the shape {list(tensor.shape)}, expected {list(shape)}")
        if tensor.dtype not in DTYPES:
            raise InputError(
                f"{source}: {theirs} holds {tensor.dtype}, expected floating-point numbers of 16, 32 or 64 bits"
            )
        if not _all_finite(tensor):
            raise InputError(
                f"{source}: {theirs} holds numbers that are not finite (NaN or infinity); the file is damaged"
            )
        converted = tensor.to(device=device, dtype=dtype)
        if torch.finfo(dtype).max < torch.finfo(tensor.dtype).max and not _all_finite(converted):
            raise InputError(
                f"{source}: {theirs} holds numbers beyond the range of {dtype}; take torch.bfloat16 instead"
            )
        seen.add(name)
        missing.pop(name, None)
        if name in tied:
            if twin is None:
                twin = converted
            elif not torch.equal(twin, converted):
                output, embeddings = map(checkpoint.name_of, (TIED, EMBEDDINGS))
                raise InputError(f"{source}: {output} differs from {embeddings}, but the configuration ties them")
        if name in expected:
            yield name, converted
    if missing:
        names = ", ".join(checkpoint.name_of(name) for name in [*missing][:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(f"{source}: without {names}{more}; the file is incomplete, or of another model")


class Fingerprint:
    """A hash of a model's weights as float32, whatever format and order they come in; made while they pass by."""

    def __init__(self, config: ModelConfig) -> None:
        self._digests = dict.fromkeys(expected_shapes(config), b"")

    def add(self, name: str, tensor: Tensor) -> None:
        """Take a tensor in; one that the model has not counts for nothing, nor does tied embeddings' second name."""
        if name in self._digests:
            numbers = tensor.detach().float().contiguous().flatten().view(torch.uint8).numpy().data
            self._digests[name] = hashlib.sha256(numbers).digest()

    def hexdigest(self) -> str:
        """In hexadecimal, of all that were taken in."""
        return hashlib.sha256(b"".join(self._digests.values())).hexdigest()


def fingerprint(checkpoint: Checkpoint) -> str:
    """The hash of a checkpoint's weights. Raises InputError as `checked_tensors` does."""
    found = Fingerprint(checkpoint.config)
    for name, tensor in checked_tensors(checkpoint, torch.float32):
        found.add(name, tensor)
    return found.hexdigest()


def assemble(checkpoint: Checkpoint, dtype: torch.dtype | None, device: torch.device) -> Transformer:
    """The model of a checkpoint. Its weights are the tensors themselves, or copies where dtype or device ask for them.

    The model is built without memory of its own and takes tensor by tensor, so no weight is held twice. With dtype
    None, weights get the dtype of the checkpoint. Raises InputError as `checked_tensors` does.
    """
    weights = dict(checked_tensors(checkpoint, dtype, device))
    if checkpoint.config.tied_embeddings:
        weights[TIED] = weights[EMBEDDINGS]
    model = shell(checkpoint.config)
    model.load_state_dict(weights, assign=True)
    if checkpoint.config.tied_embeddings:
        model.output.weight = model.tok_embeddings.weight
    widen(model)
    return model


def _all_finite(tensor: Tensor) -> bool:
    # The extremes are NaN if any number is; unlike isfinite, this takes no memory of the tensor's size.
    smallest, largest = torch.aminmax(tensor)
    return bool(torch.isfinite(smallest)) and bool(torch.isfinite(largest))
