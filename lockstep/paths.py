"""Where the implementation folders are."""

from pathlib import Path

IMPLEMENTATIONS = Path(__file__).parent.parent
