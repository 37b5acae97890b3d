"""rltrain: a config-driven command-line trainer for deep reinforcement learning."""

__version__ = "0.1.0"
