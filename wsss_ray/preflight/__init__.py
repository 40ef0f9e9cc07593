"""Inspect a folder of images for `init`, and try a job for `check`, before it is submitted."""
