"""A browser for the tests of the pages, started once a module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.browser import chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, not for longer than a module: while it runs, a test cannot call `asyncio.run`."""
    with chromium() as browser:
        yield browser
