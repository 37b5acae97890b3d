"""`rltrain export [RUN_OR_CHECKPOINT] [checkpoint=last|best] [out=FILE.pt2]`: the greedy policy, for other programs."""

from __future__ import annotations

from pathlib import Path

from rltrain.commands.evaluate import run_of
from rltrain.commands.find import find_run, source_in
from rltrain.config.stored import parse_arguments
from rltrain.errors import RequestError, RunFailed
from rltrain.terminal.output import say
from rltrain.terminal.shell import command_folder, no_folder, shown_path

DEFAULTS = {"checkpoint": None, "out": None, "trust": False}
"""`trust`, which evaluate and resume need for a run of env=module:id, changes nothing: no environment is made."""
_NAME = "policy.pt2"
_PARTS = "of its parts as gymnasium.spaces.flatten makes it, images over 255; docs/policies.md has a recipe"


def main(args: list[str]) -> int:
    """Writes the file and says what it is; returns the exit code.

    Raises:
        RequestError, RunFailed: see rltrain.cli.
    """
    name, options = parse_arguments("export", args, DEFAULTS)
    out = None if options["out"] is None else _out(str(options["out"]))
    source = source_in(find_run(name), options["checkpoint"], "export")
    from rltrain.policy.export import export_policy
    from rltrain.policy.load import load

    policy = load(source)
    if out is None:
        out = (run_of(policy) or command_folder()) / _NAME
    try:
        written = export_policy(policy, out)
    except RunFailed as error:
        if options["out"] is not None:
            raise
        raise RunFailed(f"{error}; out=FILE.pt2 writes elsewhere") from error
    look_back = ", ".join(written.look_back)
    make = "makes" if len(written.look_back) == 1 else "make"
    after = f" as {look_back} alone {make} them of the environment's" if look_back else ""
    parts = f" ({_PARTS})" if written.of_parts else ""
    say(
        f"{shown_path(written.path)}: {policy.config.algo.name} on {policy.config.env.id}, {policy.checkpoint.name}; "
        f"observations {written.observation}{parts}{after} -> actions {written.action}; "
        f"torch.export.load({str(shown_path(written.path))!r}).module()(observations)"
    )
    return 0


def _out(text: str) -> Path:
    out = Path(text)
    if out.suffix != ".pt2":
        raise RequestError(f"out={text}: must end with .pt2")
    if out.is_dir():
        raise RequestError(f"out={text}: is a folder")
    if fault := no_folder(out.parent):
        raise RequestError(f"out={text}: {out.parent}: {fault}")
    return out
