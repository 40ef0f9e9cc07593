"""Use trained segmenters: predict on new images, and export label maps and models."""
