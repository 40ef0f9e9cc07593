"""What `init` and `check` do before a job is submitted."""
