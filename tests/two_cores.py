"""A plug-in for processes that tests start: two populations side by side, also where there is but one core."""

import rltrain.machine

rltrain.machine.available_cores = lambda: 2
