"""Build the report of a run: one HTML file that works offline. Without its script it still shows everything but the controls."""

from wsss_ray.reporting.report.build import build

__all__ = ["build"]
