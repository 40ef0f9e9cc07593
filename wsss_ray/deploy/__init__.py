"""Ship a job to a cluster, and render the files that start one. No Ray."""
