"""Commands that development dependencies bring, found beside the interpreter: PATH need not name them."""

import sys
from pathlib import Path


def tool(name: str) -> Path:
    """Where a command of this environment lies."""
    return Path(sys.executable).with_name(name)
