from __future__ import annotations

import platform

from model.memory import keep_freed_memory


def test_the_allocator_takes_the_request_where_it_is_glibc() -> None:
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
