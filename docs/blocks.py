"""Run the code blocks of a page: `python -m docs.blocks PAGE... [--write]`.

The Python blocks of a page run in order, in one process and one namespace, in an empty folder.
A `text` block that directly follows one is what it prints. A Python block that begins with
`# name.py` is written to that file instead. A `console` block holds commands, each after `$ `,
and what they print, with their exit status in a last line where it is not 0.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.py)\n")


def renewed(page: str, folder: Path) -> str:
    """The page with every output as the code prints it now.

    Raises RuntimeError, with the block, where one raises.
    """
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed: str | None = None
    end = 0
    found = []
    for block in BLOCK.finditer(page):
        language, body = block.groups()
        between = page[end : block.start()]
        found.append(between)
        if language == "text" and printed is not None and not between.strip():
            body, printed = printed, None
        elif language == "python" and (file := FILE.match(body)):
            (folder / file[1]).write_text(body)
            printed = None
        elif language == "python":
            printed = captured(lambda body=body: execute(body, namespace))  # type: ignore[misc]
        elif language == "console":
            body, printed = commands(body, folder), None
        else:
            printed = None
        found.append(f"```{language}\n{body}```")
        end = block.end()
    return "".join([*found, page[end:]])


def captured(run: Callable[[], None]) -> str:
    """What is printed by running it."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        run()
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def execute(body: str, namespace: dict[str, object]) -> None:
    """Run a block."""
    try:
        exec(compile(body, "<page>", "exec"), namespace)
    except Exception:
        raise RuntimeError(f"{body}\n{traceback.format_exc()}") from None


def commands(body: str, folder: Path) -> str:
    """A console block with what its commands print now."""
    found = []
    programs = str(Path(sys.executable).parent)
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
        "NO_COLOR": "1",
    }
    for line in body.splitlines():
        if not line.startswith("$ "):
            continue
        done = subprocess.run(
            line[2:], shell=True, cwd=folder, env=environment, capture_output=True, text=True
        )
        output = [each.rstrip() for each in (done.stdout + done.stderr).splitlines()]
        status = [f"exit status {done.returncode}"] if done.returncode else []
        found += [line, *output, *status]
    return "".join(f"{line}\n" for line in found)


def main() -> None:
    """Renew pages, or say which are stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--write", action="store_true", help="write the outputs into the pages")
    arguments = parser.parse_args()
    stale = []
    home = Path.cwd()
    for file in arguments.pages:
        page = (home / file).read_text()
        with tempfile.TemporaryDirectory(prefix="lockstep-") as name:
            os.chdir(name)
            new = renewed(page, Path(name))
            os.chdir(home)
        if new != page:
            stale.append(str(file))
            if arguments.write:
                (home / file).write_text(new)
            else:
                print(f"{file} has other outputs than its code prints now:")
                print(
                    *difflib.unified_diff(page.splitlines(), new.splitlines(), lineterm="", n=1),
                    sep="\n",
                )
    if stale and not arguments.write:
        sys.exit(1)


if __name__ == "__main__":
    main()
