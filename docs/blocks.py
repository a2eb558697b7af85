"""Run the code blocks of a page: `python -m docs.blocks PAGE... [--write]`.

The Python blocks of a page run in order, in one process and one namespace, in an empty folder.
A `text` block that directly follows one is what it prints. A Python block that begins with
`# name.py` is written to that file instead. A `console` block holds commands, each after `$ `,
and what they print, with their exit status in a last line where it is not 0. The checks of a page
share a worker.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from lockstep.cli.app import called
from lockstep.workers import pool
from lockstep.workers.pool import Worker, WorkerError

Done = subprocess.CompletedProcess[str]
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
            body, printed = commands(body), None
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


def commands(body: str) -> str:
    """A console block with what its commands print now."""
    found = []
    for line in body.splitlines():
        if not line.startswith("$ "):
            continue
        command, _, filters = line[2:].partition(" | ")
        if re.match("lockstep check (?!--help)", command):
            done = checked(shlex.split(command))
            if filters:
                done = shell(filters, done.stdout)
        else:
            done = shell(line[2:])
        output = [each.rstrip() for each in (done.stdout + done.stderr).splitlines()]
        status = [f"exit status {done.returncode}"] if done.returncode else []
        found += [line, *output, *status]
    return "".join(f"{line}\n" for line in found)


def shell(line: str, given: str = "") -> Done:
    """What a line prints in a shell."""
    return subprocess.run(line, shell=True, input=given, capture_output=True, text=True)


def checked(command: list[str]) -> Done:
    """What a check prints, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sys.argv = command
        status = called()
    return subprocess.CompletedProcess(command, status, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def checks_in(kept: Worker) -> Iterator[None]:
    """Let checks share a worker: most of what one takes is the import of a framework."""

    def again(_: str, path: list[Path]) -> Worker:
        # Another path: it forgets the ports of the last check, which may have been changed.
        kept.path = []
        kept.submit("forget", Path("nothing"))
        with contextlib.suppress(WorkerError):
            kept.observe()
        kept.path = [*map(str, path)]
        return kept

    with mock.patch.object(pool, "Worker", again), mock.patch.object(kept, "close"):
        yield


def renewed_in_turn(home: Path, files: list[Path]) -> Iterator[tuple[Path, str, str]]:
    """Each page as it is, and as it would be; all of them run in one folder, empty at first."""
    with tempfile.TemporaryDirectory(prefix="lockstep-") as name:
        os.chdir(name)
        with contextlib.closing(Worker(pool.PORT)) as kept, checks_in(kept):
            for file in files:
                page = (home / file).read_text()
                yield file, page, renewed(page, Path(name))
                for left in Path(name).iterdir():
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
        os.chdir(home)


def main() -> None:
    """Renew pages, or say which are stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--write", action="store_true", help="write the outputs into the pages")
    arguments = parser.parse_args()
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ |= {"PATH": programs, "COLUMNS": "100", "NO_COLOR": "1"}
    stale = []
    home = Path.cwd()
    for file, page, new in renewed_in_turn(home, arguments.pages):
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
