"""What importing `bpe.chat` loads."""

from __future__ import annotations

import subprocess
import sys


def test_importing_chat_loads_neither_jinja_nor_torch_nor_numpy() -> None:
    program = "import sys, bpe.chat; sys.exit(any(name in sys.modules for name in ('jinja2', 'torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
