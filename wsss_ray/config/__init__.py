"""Turn YAML into a validated job."""
