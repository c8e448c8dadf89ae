"""The API of the page Inside: what a model computes for a text, as `bpe explain` shows it.

It computes with PyTorch. A server with native kernels has no weights in PyTorch's form, so they are loaded when the
page is first used. All work is done in a thread of its own, one request after the other.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bpe import Tokenizer
from bpe.errors import InputError
from bpe.playground.http import read_object
from model.config import ModelConfig
from model.generation.completions import prompt_ids
from model.generation.native import NativeModel
from model.torch_needed import INSTALL, is_installed

if TYPE_CHECKING:
    from model.explain.steps import ForwardStep
    from model.transformer import Transformer

PART = {
    "name": "inside",
    "title": "Inside",
    "module": "/static/model/inside.js",
    "style": "/static/model/inside.css",
}
"""The part of the page, as /api/about lists it."""

DEFAULT_TEXT = "the answer to the ultimate question of life, the universe, and everything is "
MOST_TOKENS = 128
"""The longest text, in tokens."""
MOST_CHARACTERS = 8192
_WAITING = 16  # requests
_KEPT = 24  # responses
_SIZES = {"float32": 4, "float64": 8}  # bytes of a number; all others have 2


class Impossible(Exception):
    """The page cannot compute. The message says why, and what to do."""


class Inside:
    """A model whose computation can be looked at. Any number of threads may use it; it computes in one."""

    def __init__(self, model: Transformer | NativeModel, tokenizer: Tokenizer, path: Path | None = None) -> None:
        """Prepare to show the inside of a model; this loads nothing.

        Args:
            model: The model that is served. A `Transformer` with plain layers is used itself; its weights are shared.
            tokenizer: The tokenizer of the model.
            path: The checkpoint of the model, from which it is loaded otherwise.
        """
        self.config: ModelConfig = model.config
        self.tokenizer = tokenizer
        self._path = path
        self._served = None if isinstance(model, NativeModel) or not _is_plain(model) else model
        self._model: Transformer | None = None
        self._failure = ""
        self._bytes = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model.serving.inside")
        self._lock = threading.Lock()
        self._waiting = 0
        self._kept: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._steps: tuple[tuple[Any, ...], list[ForwardStep]] | None = None

    def close(self) -> None:
        """Let the thread end after its present work."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def status(self) -> dict[str, Any]:
        """Return whether the model is loaded or can be, its sizes, and what a text may be."""
        config = self.config
        why = self._reason()
        state = "ready" if self._model is not None else "impossible" if why else "unloaded"
        return {
            "state": state,
            "why": why,
            "bytes": self._needed_bytes(),
            "text": DEFAULT_TEXT,
            "most_tokens": MOST_TOKENS,
            "most_characters": MOST_CHARACTERS,
            "layers": config.n_layers,
            "heads": config.n_heads,
            "kv_heads": config.n_kv_heads,
            "dim": config.dim,
            "head_dim": config.head_dim,
            "hidden_dim": config.hidden_dim,
            "vocabulary": config.vocab_size,
            "parameters": config.n_parameters,
            "image_layers": list(config.cross_attention_layers),
        }

    async def run(self, key: tuple[Any, ...], compute: Callable[[Transformer], Any]) -> Any:
        """Compute in the thread of this page, and keep the result.

        Args:
            key: What the result depends on.
            compute: Computes the result from the model.

        Raises:
            InputError: When the request cannot be carried out.
            HTTPException: When too many requests wait, or the page cannot compute.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            if self._waiting >= _WAITING:
                raise HTTPException(
                    429, "too many requests wait for this page; try again in a second", {"retry-after": "1"}
                )
            self._waiting += 1
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._executor, self._computed, compute)
        except Impossible as error:
            raise HTTPException(503, str(error)) from None
        finally:
            with self._lock:
                self._waiting -= 1
        with self._lock:
            self._kept[key] = result
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return result

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text.

        Raises:
            InputError: When the text is too long.
        """
        if len(text) > MOST_CHARACTERS:
            raise InputError(f"text: it has {len(text):,} characters; this page shows at most {MOST_CHARACTERS:,}")
        ids = prompt_ids(self.tokenizer, text)
        most = min(MOST_TOKENS, self.config.max_seq_len)
        if len(ids) > most:
            raise InputError(f"text: it has {len(ids):,} tokens; this page shows at most {most:,}; shorten it")
        if not ids:
            raise InputError("text: it is empty, and no token begins a text; give at least one character")
        return ids

    def steps(self, model: Transformer, ids: Sequence[int], layer: int, head: int) -> list[ForwardStep]:
        """Return the steps of a layer and a head. Those of the last call are kept."""
        from model.explain.steps import explain

        key = (tuple(ids), layer, head)
        if self._steps is None or self._steps[0] != key:
            self._steps = None  # frees its memory
            self._steps = key, list(explain(model, ids, layer=layer, head=head, n_vocab=self.tokenizer.n_vocab))
        return self._steps[1]

    def _computed(self, compute: Callable[[Transformer], Any]) -> Any:
        if self._model is None:
            self._model = self._loaded()
        return compute(self._model)

    def _loaded(self) -> Transformer:
        reason = self._reason()
        if reason:
            raise Impossible(reason)
        if self._served is not None:
            return _twin(self._served)
        assert self._path is not None
        from model.loading import load

        try:
            return load(self._path, backend="torch", ignore_unknown=True)[0]
        except (InputError, MemoryError) as error:
            self._failure = f"the model cannot be loaded for this page: {error or 'out of memory'}"
            raise Impossible(self._failure) from None

    def _reason(self) -> str:
        """Return why the page cannot compute; "" if it can."""
        if self._failure or self._model is not None:
            return self._failure
        if not is_installed():
            return f"this page computes with PyTorch, which is not installed on the server; run: {INSTALL}"
        if self._served is not None:
            return ""
        if self._path is None:
            return "the server has no checkpoint from which this page could load the model"
        needed, free = self._needed_bytes(), available_memory()
        if free is not None and needed > free:
            return (
                f"this page needs the weights a second time, in PyTorch's form: {_in_words(needed)}, but the server has"
                f" {_in_words(free)} of memory left; serve a smaller model, or use a machine with more memory"
            )
        return ""

    def _needed_bytes(self) -> int:
        """Return the memory that the model will take besides what is served."""
        if self._served is not None or self._path is None:
            return 0
        if not self._bytes:
            from model.checkpoint import open_checkpoint

            try:
                dtype = open_checkpoint(self._path, ignore_unknown=True).dtype
            except InputError:
                dtype = "bfloat16"
            self._bytes = self.config.n_parameters * _SIZES.get(dtype, 2)
        return self._bytes


def _is_plain(model: Transformer) -> bool:
    """Return whether the layers have their own projections, which packed layers do not have."""
    return all(hasattr(layer.attention, "wq") for layer in model.layers if hasattr(layer, "attention"))


def _twin(model: Transformer) -> Transformer:
    """Return a model with the same weights, whose hooks do not touch the one that serves requests meanwhile."""
    shared = {id(tensor): tensor for tensor in itertools.chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, shared)


def available_memory() -> int | None:
    """Return the memory that can be taken without swapping, in bytes; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    words = values.get("MemAvailable", "").split()
    return int(words[0]) << 10 if words else None


def _in_words(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{math.ceil(size / 1e6)} MB"


def inside_routes(inside: Inside) -> list[Route]:
    """Return the routes of the API. Bodies are JSON objects; each has the field "text".

    - ``GET /api/inside``: the status, see `Inside.status`.
    - ``POST /api/inside/load`` of ``{}``: loads the model, and returns the status.
    - ``POST /api/inside/text``: tokens, and what each layer would say; see `summaries.text_summary`.
    - ``POST /api/inside/maps``: the attention of all heads, coarsely; binary, see `summaries.all_maps`.
    - ``POST /api/inside/layer`` with "layer": the attention of its heads; binary, see `summaries.layer_maps`.
    - ``POST /api/inside/steps`` with "layer" and "head": the steps; see `summaries.step_summary`.
    - ``POST /api/inside/numbers`` with "layer", "head", "step" and "row": a row of a step, float32.

    Args:
        inside: The model.
    """

    async def status(request: Request) -> Response:
        found = await asyncio.get_running_loop().run_in_executor(None, inside.status)
        return JSONResponse(found, headers=_NO_STORE)

    async def load(request: Request) -> Response:
        _fields(await read_object(request))
        await inside.run(("load",), lambda model: None)
        return await status(request)

    async def text(request: Request) -> Response:
        (given,) = _fields(await read_object(request), "text")

        def compute(model: Transformer) -> bytes:
            from model.explain.summaries import text_summary

            return _json(text_summary(model, inside.tokenizer, inside.ids(given)))

        return _response(await inside.run(("text", given), compute), "application/json")

    async def maps(request: Request) -> Response:
        (given,) = _fields(await read_object(request), "text")

        def compute(model: Transformer) -> bytes:
            from model.explain.summaries import all_maps

            return all_maps(model, inside.ids(given))

        return _response(await inside.run(("maps", given), compute))

    async def layer_of(request: Request) -> Response:
        given, layer = _fields(await read_object(request), "text", "layer")

        def compute(model: Transformer) -> bytes:
            from model.explain.summaries import layer_maps

            return layer_maps(model, inside.ids(given), layer)

        return _response(await inside.run(("layer", given, layer), compute))

    async def steps(request: Request) -> Response:
        given, layer, head = _fields(await read_object(request), "text", "layer", "head")

        def compute(model: Transformer) -> bytes:
            from model.explain.summaries import step_summary

            return _json(
                {"steps": [step_summary(step) for step in inside.steps(model, inside.ids(given), layer, head)]}
            )

        return _response(await inside.run(("steps", given, layer, head), compute), "application/json")

    async def numbers(request: Request) -> Response:
        given, layer, head, step, row = _fields(await read_object(request), "text", "layer", "head", "step", "row")

        def compute(model: Transformer) -> bytes:
            from model.explain.summaries import row_numbers

            found = inside.steps(model, inside.ids(given), layer, head)
            if step >= len(found):
                raise InputError(f"step: there are {len(found)}; give a number from 0 to {len(found) - 1}")
            return row_numbers(found[step], row)

        return _response(await inside.run(("numbers", given, layer, head, step, row), compute))

    posts = {"load": load, "text": text, "maps": maps, "layer": layer_of, "steps": steps, "numbers": numbers}
    return [
        Route("/api/inside", status),
        *(Route(f"/api/inside/{name}", handler, methods=["POST"]) for name, handler in posts.items()),
    ]


_NO_STORE = {"cache-control": "no-store"}


def _response(content: bytes, kind: str = "application/octet-stream") -> Response:
    return Response(content, media_type=kind, headers=_NO_STORE)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")


def _fields(body: dict[str, Any], *names: str) -> list[Any]:
    """Return the fields of a body: a text, and numbers.

    Raises:
        InputError: When a field is missing, wrong or unknown.
    """
    unknown = sorted(set(body) - set(names))
    if unknown:
        known = ", ".join(names) or "none"
        raise InputError(f"{unknown[0][:100]}: not a field of this request; its fields: {known}")
    values = []
    for name in names:
        value = body.get(name)
        if name == "text" and not isinstance(value, str):
            raise InputError("text: missing, or not a string; give the text to read")
        if name != "text" and (type(value) is not int or not 0 <= value < 1 << 31):
            raise InputError(f"{name}: missing, or not a whole number from 0; give its number")
        values.append(value)
    return values
