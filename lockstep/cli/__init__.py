"""The command line: `lockstep run | optimizers | check | mistakes | read`, a file a command.

It knows all that is below it, and must find nothing itself: it asks, and hands on what was found.
"""

from lockstep.cli.app import app, main

__all__ = ["app", "main"]
