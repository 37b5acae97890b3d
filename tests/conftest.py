"""Makes `probe_envs:<Id>` importable here and in every process that a test starts; one thread for small work."""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

_HERE = str(Path(__file__).parent)
if _HERE not in sys.path:
    sys.path.insert(0, _HERE)
os.environ["PYTHONPATH"] = os.pathsep.join([_HERE, *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Lines are wrapped to the terminal, and tests side by side have another one than pytest alone.
os.environ["COLUMNS"] = "120"
os.environ["TERM"] = "xterm"

# A shell ignores SIGINT for what it starts in the background, and every process that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> "torch.device":
    """Each kind of device that there is."""
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda", 0) if request.param == "cuda" else torch.device(request.param)
