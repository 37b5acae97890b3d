"""The end of a process in which an environment left something running."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENDS = """
import atexit, multiprocessing, threading, time
from rltrain.terminal import ending
ending.GRACE_SECONDS = 0.3
atexit.register(print, "called at exit")
print("said")
{left}
ending.ends_soon(3)
raise SystemExit(3)
"""


@pytest.mark.parametrize(
    ("left", "named"),
    [
        ("", ""),
        ("threading.Thread(target=time.sleep, args=(0.05,)).start()", ""),
        ("threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", ""),
        ("threading.Thread(target=time.sleep, args=(60,), name='tick').start()", "thread tick"),
        ("for n in 'ab': threading.Thread(target=time.sleep, args=(60,), name=n).start()", "thread a and 1 more"),
        (
            "multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,), name='sim').start()",
            "process sim",
        ),
        (
            "t = threading.Thread(target=time.sleep, args=(60,), name='t'); t.start(); atexit.register(t.join)",
            "thread t",
        ),
    ],
)
def test_it_ends_with_its_exit_code_and_all_that_was_printed(left: str, named: str) -> None:
    """Also where a function of atexit waits for the thread."""
    command = [sys.executable, "-c", ENDS.format(left=left)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 3
    assert ended.stderr == (f"warning   {named}: left running by an environment, and ended now\n" if named else "")
    assert ended.stdout == ("said\n" if "t.join" in left else "said\ncalled at exit\n")
