"""The report of one run: a single HTML file that needs no network, and whose script only adds to what stands there."""

from wsss_ray.reporting.report.build import build

__all__ = ["build"]
