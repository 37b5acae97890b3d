"""The shell command `rltrain`: which command is meant, and exit codes. Imports neither torch nor gymnasium."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from rltrain.terminal.ending import ends_soon
from rltrain.terminal.interrupts import (  # the first: Ctrl-C during any other import is one line
    sigint_ends,
    sigusr1_ignored,
)
from rltrain.terminal.output import OutlivingStream, errors, own_output, say
from rltrain.terminal.text import harmless

_LONGEST_LINE = 1000
# Turns in which torch's threads wait for each other before they sleep, read when torch is loaded. As they come they
# keep their cores from other programs: beside two of those, DQN on Atari made with two threads a quarter of the steps
# of one, and makes two thirds now.
_SPINS = "2000"


def main(args: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        args: those of the process unless given; then the process is taken to end soon after.

    Returns:
        0 done, 1 the run failed, 2 the request is wrong, 130 / 143 / 129 stopped by SIGINT / SIGTERM / SIGHUP.
    """
    whole_process = args is None
    args = sys.argv[1:] if args is None else args
    if whole_process and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    args = args[: args.index("#")] if "#" in args else args  # zsh passes on a comment that was pasted with its command
    with sigint_ends(), sigusr1_ignored(for_good=whole_process), own_output(whole_process) as output:
        code = _run(args)
        output.flush()
        code = code if _trains(args) else _delivered(code, output)
        if whole_process:
            ends_soon(code)
        return code


def _run(args: list[str]) -> int:
    from rltrain.terminal.shell import command_given_here

    try:
        os.getcwd()
    except FileNotFoundError:
        gone = os.environ.get("PWD", "the working directory")
        return _fail(f"{gone}: has been removed; cd to a folder that is there", 2)
    with command_given_here():
        return _answer(args)


def _answer(args: list[str]) -> int:
    from rltrain.errors import Interrupted, RequestError, RunFailed
    from rltrain.terminal.shell import unusable

    try:
        return _dispatch(args)
    except RequestError as error:
        return _fail(str(error), 2)
    except RunFailed as error:
        return _fail(str(error), 1)
    except Interrupted as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("stopped by SIGINT", 130)
    except OSError as error:
        if not isinstance(error.filename, str):
            raise
        # No permission, a loop of links, a name too long.
        return _fail(unusable(Path(error.filename), error), 2)


def _dispatch(args: list[str]) -> int:
    from rltrain.config.command_names import COMMANDS
    from rltrain.config.folders import import_plugins

    command = args[0] if args else ""
    if _asks_for_help(args):
        from rltrain.commands.help import print_help

        about = args[1] if command == "help" and len(args) > 1 else command
        return print_help(about if about in COMMANDS else None)
    if command in COMMANDS:
        import_plugins()  # a stored run may use what they add
        module = importlib.import_module(f"rltrain.commands.{command}")
        return int(module.main(args[1:]))
    if command == "--version":
        from rltrain import __version__

        say(f"rltrain {__version__}")
        return 0
    from rltrain.commands import train

    return train.main(args)


def _trains(args: list[str]) -> bool:
    """Whether the command leaves a run, which matters more than what it prints."""
    return args[:1] not in (["evaluate"], ["report"], ["export"], ["list"], ["--version"]) and not _asks_for_help(args)


def _asks_for_help(args: list[str]) -> bool:
    return "--help" in args or "-h" in args or args[:1] == ["help"]


def _delivered(code: int, output: OutlivingStream) -> int:
    """The exit code of a command whose output is all there is of it."""
    if output.failure is None:
        return code
    if not isinstance(output.failure, BrokenPipeError):
        print(f"rltrain: standard output cannot be written: {output.failure.strerror}", file=errors())
    return code or 1


def _fail(message: str, exit_code: int) -> int:
    print(f"rltrain: {_harmless(message)}", file=errors())
    return exit_code


def _harmless(message: str) -> str:
    """Text that is safe for a terminal and no screens long: a message may quote a stranger's file."""
    lines = [line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..." for line in message.split("\n")]
    return "\n".join(map(harmless, lines))


if __name__ == "__main__":
    sys.exit(main())
