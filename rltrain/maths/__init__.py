"""Losses as pure functions of tensors; they return per-sample values, the caller reduces."""
