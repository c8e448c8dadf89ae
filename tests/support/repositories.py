"""Names of repositories in tests."""

from __future__ import annotations

from bpe.hub.names import HubName, parse


def hub_name(text: str = "org/name") -> HubName:
    """Return the repository that a name stands for."""
    found = parse(text)
    assert found is not None
    return found
