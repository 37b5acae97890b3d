"""A plug-in for processes that tests start: two populations side by side, also where there is but one core."""

import rltrain.compute.device

rltrain.compute.device.available_cores = lambda: 2
