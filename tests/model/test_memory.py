from __future__ import annotations

import platform

from model.memory import keep_freed_memory


def test_glibc_accepts_the_settings() -> None:
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
