"""Files of runs and sweeps: written whole or not at all, and read as plain data that may be of foreign origin."""
