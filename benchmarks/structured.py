"""Measure structured output: the time of a mask for each token, and of compiling a grammar; xgrammar beside it.

    python benchmarks/structured.py                                 # SmolLM2's and Llama 3's vocabularies
    python benchmarks/structured.py path/to/tokenizer.model --json results.json

How to read the table: each line is a vocabulary and an engine. "mask" is the time until the logits of a token are
restricted, from the state of the grammar to -inf in a copy of the logits: the median, the 99th percentile and the
largest of all tokens of all texts. "accept" is the time to append a token. "compile" is the time from a schema to the
first mask, in milliseconds, and "vocabulary" the time to read the vocabulary, once. Each engine reads the same tokens:
those of a text that the schema allows. ``refused`` counts the schemas that an engine does not take, and ``wrong`` those
of whose texts it does not allow a token.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from bpe import InputError, Tokenizer
from bpe.locate import locate
from model import GrammarCompiler

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "email": {"anyOf": [{"type": "string", "format": "email"}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"enum": ["admin", "author", "reader"]}, "maxItems": 3},
    },
    "required": ["name", "age", "email", "tags"],
    "additionalProperties": False,
}
INVOICE = {
    "$defs": {
        "line": {
            "type": "object",
            "properties": {
                "article": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"},
                "count": {"type": "integer", "minimum": 1},
                "price": {"type": "number", "minimum": 0},
            },
            "required": ["article", "count", "price"],
            "additionalProperties": False,
        }
    },
    "type": "object",
    "properties": {
        "number": {"type": "string"},
        "date": {"type": "string", "format": "date"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "minItems": 1},
        "paid": {"type": "boolean"},
    },
    "required": ["number", "date", "lines", "paid"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "title": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["title", "children"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
ESSAY = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "text": {"type": "string"}},
    "required": ["title", "text"],
    "additionalProperties": False,
}
FREE = {"type": "object"}
WORDS = (
    "The old lighthouse keeper climbed the stairs every evening, counted the ships on the horizon and wrote them down. "
)
EXAMPLES: list[tuple[dict[str, Any], Any]] = [
    (PERSON, {"name": "Ada Lovelace", "age": 36, "email": "ada@example.com", "tags": ["author", "reader"]}),
    (PERSON, {"name": "Grace Hopper", "age": 85, "email": None, "tags": []}),
    (
        INVOICE,
        {
            "number": "2026-0042",
            "date": "2026-12-01",
            "lines": [
                {"article": "AB-1234", "count": 3, "price": 19.99},
                {"article": "ZX-0001", "count": 120, "price": 0.5},
            ],
            "paid": True,
        },
    ),
    (
        TREE,
        {
            "title": "root",
            "children": [
                {"title": "first chapter", "children": []},
                {"title": "second", "children": [{"title": "a section of it", "children": []}]},
            ],
        },
    ),
    (ESSAY, {"title": "The lighthouse", "text": WORDS * 8}),
    (FREE, {"any": [1, 2.5, None, True], "nested": {"keys": "and values", "more": [[], {}]}}),
]


class Text(Protocol):
    """A text in an engine."""

    def restrict(self, logits: Any) -> Any: ...
    def accept(self, id: int) -> object: ...


class Engine(NamedTuple):
    """A library that restricts logits."""

    start: Callable[[dict[str, Any]], Callable[[], Text]]
    """Compiles a schema, and returns a function that returns a text at its beginning."""
    logits: Callable[[Any], Any]
    """Converts an array of logits."""


def ours(tokenizer: Tokenizer) -> Engine:
    compiler = GrammarCompiler(tokenizer, end_ids=tokenizer.eos_ids)
    return Engine(lambda schema: compiler.json_schema(schema).start, lambda logits: logits)


def xgrammar(tokenizer: Tokenizer) -> Engine:
    import xgrammar as peer

    special = {tokenizer.encode_single_token(text) for text in tokenizer.special_tokens_set}
    tokens = [b"" if id in special else _bytes_of(tokenizer, id) for id in range(tokenizer.n_vocab)]
    info = peer.TokenizerInfo(tokens, peer.VocabType.RAW, stop_token_ids=list(tokenizer.eos_ids))
    compiler = peer.GrammarCompiler(info, max_threads=torch.get_num_threads(), cache_enabled=False)

    class PeerText:
        def __init__(self, grammar: Any) -> None:
            self.matcher = peer.GrammarMatcher(grammar)
            self.mask = peer.allocate_token_bitmask(1, info.vocab_size)

        def restrict(self, logits: torch.Tensor) -> torch.Tensor:
            self.matcher.fill_next_token_bitmask(self.mask)
            logits = logits.clone()
            peer.apply_token_bitmask_inplace(logits, self.mask)
            return logits

        def accept(self, id: int) -> object:
            return self.matcher.accept_token(id)

    def start(schema: dict[str, Any]) -> Callable[[], Text]:
        grammar = compiler.compile_json_schema(json.dumps(schema), any_whitespace=True)
        return lambda: PeerText(grammar)

    return Engine(start, lambda logits: torch.from_numpy(logits[None]))


def _ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a text, without the space that SentencePiece puts in front of it."""
    ids = tokenizer.encode_ordinary(text)
    if not tokenizer.decode_single_token_bytes(ids[0]).startswith(b" "):
        return ids
    return tokenizer.encode_ordinary("\n" + text)[len(tokenizer.encode_ordinary("\n")) :]


def _bytes_of(tokenizer: Tokenizer, id: int) -> bytes:
    try:
        return tokenizer.decode_single_token_bytes(id)
    except KeyError:
        return b""


def measure(name: str, make: Callable[[Tokenizer], Engine], tokenizer: Tokenizer, repeat: int) -> dict[str, Any]:
    """Return the times of an engine on the examples, in microseconds (masks) and milliseconds (the rest)."""
    began = time.perf_counter()
    engine = make(tokenizer)
    vocabulary = time.perf_counter() - began
    logits = engine.logits(np.random.default_rng(0).normal(size=tokenizer.n_vocab).astype(np.float32))
    compiled, masks, accepts, refused, wrong = [], [], [], 0, 0
    for schema, value in EXAMPLES:
        ids = _ids_of(tokenizer, json.dumps(value))
        began = time.perf_counter()
        try:
            start = engine.start(schema)
            start().restrict(logits)
        except (InputError, RuntimeError):
            refused += 1
            continue
        compiled.append(time.perf_counter() - began)
        for _ in range(repeat):
            text = start()
            for id in ids:
                at = time.perf_counter()
                restricted = text.restrict(logits)
                between = time.perf_counter()
                is_allowed = restricted.reshape(-1)[id] > -np.inf
                after = time.perf_counter()
                if not is_allowed:
                    wrong += 1
                    break
                text.accept(id)
                masks.append(between - at)
                accepts.append(time.perf_counter() - after)
    return {
        "engine": name,
        "vocabulary_ms": vocabulary * 1e3,
        "compile_ms": median(compiled) * 1e3,
        "compile_most_ms": max(compiled) * 1e3,
        "mask_us": float(np.median(masks)) * 1e6,
        "mask_p99_us": float(np.percentile(masks, 99)) * 1e6,
        "mask_most_us": max(masks) * 1e6,
        "accept_us": float(np.median(accepts)) * 1e6,
        "tokens": len(masks),
        "refused": refused,
        "wrong": wrong,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizers", nargs="*", default=["smollm2", "llama3"], help="names or files of tokenizers")
    parser.add_argument("--repeat", type=int, default=5, help="how often each text is read")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    arguments = parser.parse_args()
    engines = {"ours (llguidance)": ours, "xgrammar": xgrammar}
    try:
        import xgrammar as _  # noqa: F401
    except ImportError:
        del engines["xgrammar"]
        print("xgrammar is not installed; it is left out")
    print(f"{'vocabulary':24}{'engine':20}{'mask us':>9}{'p99':>9}{'most':>9}{'accept us':>11}", end="")
    print(f"{'compile ms':>12}{'most':>8}{'vocabulary ms':>15}{'refused':>9}{'wrong':>7}")
    results = []
    for name in arguments.tokenizers:
        tokenizer = Tokenizer.from_file(locate(name))
        for engine, make in engines.items():
            row = measure(engine, make, tokenizer, arguments.repeat)
            results.append({"tokenizer": name, "n_vocab": tokenizer.n_vocab, **row})
            title = f"{Path(name).name[:14]} {tokenizer.n_vocab:,}"
            print(
                f"{title:24}{engine:20}{row['mask_us']:9.1f}{row['mask_p99_us']:9.1f}{row['mask_most_us']:9.0f}", end=""
            )
            print(f"{row['accept_us']:11.1f}{row['compile_ms']:12.1f}{row['compile_most_ms']:8.1f}", end="")
            print(f"{row['vocabulary_ms']:15.0f}{row['refused']:9}{row['wrong']:7}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
