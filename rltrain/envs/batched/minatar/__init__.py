"""Twins of MinAtar's games, which draw the numbers of the package too."""
