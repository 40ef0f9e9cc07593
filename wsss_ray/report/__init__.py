"""The report of one run: a single HTML file that needs no network and no script."""

from wsss_ray.report.build import build

__all__ = ["build"]
