"""Where a run's scalars go."""
