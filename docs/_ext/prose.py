"""What the generated pages have in common: templates, and plain text as Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from lockstep import mistakes

TEMPLATES = Path(__file__).parent.parent / "_pages"
# What a sentence means as code: a call, a dotted name, one with an underscore, a setting.
CODE = re.compile(
    r"""(?<![\w.-])(?:
      [A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*\([^()]*\)        # backward()
    | [A-Za-z_]\w*(?:\.[A-Za-z_]\w+)+                  # torch.optim
    | \w*[A-Za-z]_\w+(?:=[\w.+-]*\w)?                  # max_norm=1
    | [A-Za-z]\w+=[\w.+-]*\w                           # eps=1e-6
    )""",
    re.VERBOSE,
)
PUNCTUATION = re.compile(r"([\\`*_{}\[\]<>#|~$^])")
THREAD = re.compile(r"https://github\.com/([^/]+/[^/]+)/(?:issues|pull|discussions)/(\d+).*")


def prose(text: str) -> str:
    """A plain text as Markdown: names of mistakes and what looks like code become code."""
    parts, end = [], 0
    for match in means_code().finditer(text):
        parts += [PUNCTUATION.sub(r"\\\1", text[end : match.start()]), f"`{match[0].strip('`')}`"]
        end = match.end()
    return "".join([*parts, PUNCTUATION.sub(r"\\\1", text[end:])])


@cache
def means_code() -> re.Pattern[str]:
    """What is code already, a mistake's name, and what looks like code."""
    names = "|".join(sorted(mistakes.names(), key=len, reverse=True))
    return re.compile(rf"`[^`]+`|(?<![\w-])(?:{names})(?![\w-])|{CODE.pattern}", re.VERBOSE)


def thread(address: str) -> str:
    """A short name of a public thread."""
    return THREAD.sub(r"\1#\2", address).removeprefix("https://")


def render(template: str, values: Mapping[str, Any], **filters: Callable[..., str]) -> str:
    """A page from a template of docs/_pages; its filters have these names in no other."""
    templates().filters |= filters
    return templates().get_template(template).render(values)


@cache
def templates() -> jinja2.Environment:
    """Those of docs/_pages, each compiled once."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters |= {"prose": prose, "thread": thread}
    return found
