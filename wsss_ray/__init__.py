"""wsss-ray: weakly supervised semantic segmentation from image-level tags, on a laptop or on a Ray cluster."""

__version__ = "0.1.0"
