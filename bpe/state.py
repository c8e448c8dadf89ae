"""Saved states: their checksum, and short forms of their values for messages."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any


def checksum(state: Mapping[str, Any]) -> int:
    """Return the CRC-32 of a state's JSON, independent of the order of its keys."""
    return zlib.crc32(json.dumps(state, sort_keys=True).encode())


def shortened(value: Any) -> str:
    """Return a value as JSON of at most 60 characters, for messages."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
