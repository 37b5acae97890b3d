"""Runs any algorithm: members, learning, stepping, targets. Names no algorithm."""
