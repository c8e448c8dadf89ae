"""Words of a command line, as a person types them into a shell."""

from __future__ import annotations

import os
import shlex


def quoted(text: str) -> str:
    r"""Return a text as one word of a command line of this machine's shell.

    >>> print(quoted("my.json"), quoted("my file.json"), quoted("it's.json"))
    my.json 'my file.json' "it's.json"
    """
    if os.name == "nt":
        from subprocess import list2cmdline

        return list2cmdline([text]) if text else '""'
    if "'" in text and not any(character in text for character in '"$`\\!\n'):
        return f'"{text}"'  # where shlex would write '"'"' for each apostrophe
    return shlex.quote(text)
