"""Optuna, asked for settings and told what they reached."""
