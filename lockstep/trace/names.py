"""What the names of parameters say of them, and how much two of them look alike."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

# What libraries call the same thing.
ALIKE = {
    "kernel": "weight", "scale": "weight", "gamma": "weight", "embeddings": "weight",
    "embedding": "weight", "beta": "bias", "w": "weight", "b": "bias",
}  # fmt: skip
WORD = re.compile(r"[a-z]+|\d+")


def holder(name: str) -> str:
    """The module that a tensor stands in, by its whole name."""
    return name.rpartition("/" if "/" in name else ".")[0]


def words(name: str) -> list[str]:
    """The words of a name, those that libraries use for the same thing alike."""
    return [ALIKE.get(word, word) for word in WORD.findall(name.lower())]


def likeness(one: str, other: str) -> float:
    """How much two names look alike, from 0 to 1."""
    return SequenceMatcher(None, words(one), words(other)).ratio() + 0.1 * (
        SequenceMatcher(None, one.lower(), other.lower()).ratio()
    )


def module(name: str) -> str:
    """The module that a parameter stands in, by its name."""
    return re.split(r"[./]", name.rsplit("/", 1)[0] if "/" in name else name.rsplit(".", 1)[0])[-1]
