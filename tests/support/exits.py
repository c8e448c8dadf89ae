"""Interpreters that end while a thread works."""

from __future__ import annotations

import os
import subprocess
import sys

ENDING = """
import threading, time
begun = threading.Event()
def work():
    while True:
        call()
        begun.set()
        if is_idle:
            return
threading.Thread(target=work, daemon=True).start()
begun.wait()

class Late:
    def __del__(self):
        time.sleep(0.5)  # meanwhile the thread asks for the lock of an interpreter that is ending
late = Late()
"""


def exit_of(script: str, *arguments: str, is_idle: bool = False) -> tuple[int, str]:
    """Run a script that defines `call`, let a thread call it until the interpreter ends, and return status and stderr.

    Args:
        script: The script.
        arguments: Its arguments.
        is_idle: Whether the thread calls once only and ends.
    """
    finished = subprocess.run(
        [sys.executable, "-c", f"is_idle = {is_idle}\n{script}{ENDING}", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return finished.returncode, finished.stderr
