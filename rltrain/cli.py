"""The shell command `rltrain`: which command is meant, and exit codes. Imports neither torch nor gymnasium."""

from __future__ import annotations

import importlib
import sys

from rltrain import __version__
from rltrain.config.command_names import COMMANDS
from rltrain.config.folders import import_plugins
from rltrain.errors import Interrupted, RequestError, RunFailed


def main(args: list[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0 done, 1 the run failed, 2 the request is wrong, 130 / 143 stopped by SIGINT / SIGTERM.
    """
    args = sys.argv[1:] if args is None else args
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
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def _dispatch(args: list[str]) -> int:
    command = args[0] if args else ""
    if command in COMMANDS:
        if "--help" in args or "-h" in args:
            from rltrain.commands.help import print_help

            return print_help()
        import_plugins()  # a stored run may use what they add
        module = importlib.import_module(f"rltrain.commands.{command}")
        return int(module.main(args[1:]))
    if command == "--version":
        print(f"rltrain {__version__}")
        return 0
    if any(arg in ("--help", "-h") for arg in args):
        from rltrain.commands.help import print_help

        return print_help()
    from rltrain.commands import train

    return train.main(args)


def _fail(message: str, exit_code: int) -> int:
    print(f"rltrain: {message}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
