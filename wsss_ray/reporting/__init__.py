"""Progress, status, reports and experiment trackers: all that people see of a run."""
