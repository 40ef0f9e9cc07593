"""Make one shard of a stage, or run one training. No Ray."""
