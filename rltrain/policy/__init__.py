"""A trained policy outside of training: loaded from a run, or exported as a program."""
