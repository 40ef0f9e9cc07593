"""From YAML to a validated job."""
