"""Make one shard or one training."""
