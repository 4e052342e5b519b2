"""What needs a process of its own."""

import os
import subprocess
import sys
import textwrap


def script(text, timeout=120, **environment):
    """Runs Python code in a process of its own; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | environment,
    )
    assert done.returncode == 0, f"exit {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout.strip()
