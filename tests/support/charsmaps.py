"""Maps as sentencepiece's normalization has them: a double array of the Darts library, and replacements."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer


def charsmap(replacements: Mapping[str, str]) -> bytes:
    """Return a map with these keys and replacements, in the order of their bytes."""
    blob, places = b"", {}
    for key, replacement in sorted(replacements.items(), key=lambda item: item[0].encode()):
        places[key.encode()] = len(blob)
        blob += replacement.encode() + b"\0"
    units = _double_array(places)
    return struct.pack(f"<{len(units) + 1}I", 4 * len(units), *units) + blob


def _double_array(values: Mapping[bytes, int]) -> list[int]:
    """Return the units of a trie. Each node's children have a block of 256 units to themselves."""
    children: dict[bytes, set[int]] = {b"": set()}
    for key in values:
        for end in range(len(key)):
            children.setdefault(key[:end], set()).add(key[end])
        children.setdefault(key, set())
    base = {prefix: 256 * (number + 1) for number, prefix in enumerate(children)}
    units = [0] * (256 * (len(children) + 1))

    def place(at: int, prefix: bytes, label: int) -> None:
        # An offset of more than 21 bits would need the unit's other form, which tests of this size do not reach.
        units[at] = (at ^ base[prefix]) << 10 | (prefix in values) << 8 | label

    place(0, b"", 0)
    for prefix, bytes_after in children.items():
        for byte in bytes_after:
            place(base[prefix] ^ byte, prefix + bytes([byte]), byte)
        if prefix in values:
            units[base[prefix]] = 1 << 31 | values[prefix]
    return units


def entry_of(content: bytes) -> dict[str, Any]:
    """Return the entry of a tokenizer.json for a map."""
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode()}


def reference_normalizer(entry: Any) -> Any:
    """Return what tokenizers makes of the "normalizer" of a tokenizer.json."""
    model = {"type": "BPE", "vocab": {}, "merges": []}
    file = {"version": "1.0", "added_tokens": [], "normalizer": entry, "model": model}
    return Tokenizer.from_str(json.dumps(file)).normalizer
