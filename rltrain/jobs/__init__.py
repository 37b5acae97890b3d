"""From a validated config to a full run folder: one run, or several trained as one, in this process or in workers."""
