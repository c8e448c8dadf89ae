"""The checksum and the short form of a state that is kept on disk."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any


def checksum(state: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(state, sort_keys=True).encode())


def shortened(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
