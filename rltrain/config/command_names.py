"""The words that are commands when they come first; anything else is `rltrain [key=value ...]`."""

COMMANDS = ("resume", "evaluate", "report", "export", "tune", "list")
