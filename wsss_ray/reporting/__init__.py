"""What people and trackers see of a run."""
