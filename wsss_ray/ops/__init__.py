"""Compute with tensors and arrays. Functions are pure: no files, no state, no Ray."""
