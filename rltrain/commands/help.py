"""`rltrain --help`: one screen that teaches."""

from __future__ import annotations


def print_help() -> int:
    print("help")
    return 0
