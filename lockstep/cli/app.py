"""The commands together, and what becomes of an error: one clear line, and a status."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from lockstep.cli import streams
from lockstep.cli.arguments import UsageError
from lockstep.cli.check import check
from lockstep.cli.initial import initial
from lockstep.cli.mistakes import mistakes
from lockstep.cli.optimizers import optimizers
from lockstep.cli.read import read
from lockstep.cli.run import run
from lockstep.cli.trace import trace

try:
    from typer.exceptions import TyperException
except ImportError:  # an older typer, which raises what click does
    from click import ClickException as TyperException  # type: ignore[assignment]

WRONG_CALL = 2
# As sysexits.h has it, and as a shell has what a signal ended.
INTERNAL = 70
INTERRUPTED = 128 + signal.SIGINT
CLOSED_PIPE = 128 + signal.SIGPIPE


class Commands(TyperGroup):
    """The commands, some of them of two words: `trace init`; a folder of that name is ./init."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called, and what is left of the call."""
        if " ".join(args[:2]) in self.commands:
            args = [" ".join(args[:2]), *args[2:]]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The same training step in PyTorch, TensorFlow and JAX, compared bit for bit.",
)
COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "optimizers": optimizers,
    "check": check,
    "trace": trace,
    "trace init": initial,
    "read": read,
    "mistakes": mistakes,
}
for name, command in COMMANDS.items():
    app.command(name)(command)


def main() -> None:
    """Run the command line; turn errors into one clear line and a status.

    Status 1 is a difference, and nothing else.
    """
    streams.prepare()
    # Leave by the same way as on Ctrl-C: workers stopped, temporary files removed.
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) != signal.SIG_IGN:  # as under nohup
            signal.signal(ending, signal.default_int_handler)
    try:
        status = called()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has read enough
        status = CLOSED_PIPE
    except OSError as error:
        status = WRONG_CALL
        streams.complain(f"{error.filename or 'cannot print'}: {error.strerror}")
    if status == INTERRUPTED:
        streams.complain("interrupted")
    if status in (WRONG_CALL, CLOSED_PIPE):
        streams.forget()
    sys.exit(status)


def called() -> int:
    """Run the command that was called; its status."""
    from lockstep.problem import ProblemError
    from lockstep.workers.pool import WorkerError

    try:
        os.getcwd()
        return int(app(standalone_mode=False) or 0)
    except FileNotFoundError as error:
        if error.filename is not None:
            raise
        streams.complain("the current folder is gone: change to one that exists")
    except TyperException as error:
        # A call without a command has printed its help, and has no message.
        if message := error.format_message():
            streams.complain(message)
    except (UsageError, ProblemError, WorkerError) as error:
        streams.complain(str(error))
    except (KeyboardInterrupt, typer.Abort):  # which an older typer makes of it
        return INTERRUPTED
    except SystemExit:  # what rich makes of a closed pipe
        return CLOSED_PIPE
    except OSError:
        raise
    except Exception:
        traceback.print_exc()
        streams.complain("this is an error of lockstep itself, please report it")
        return INTERNAL
    return WRONG_CALL
