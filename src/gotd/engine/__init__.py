"""Where shards are mapped: this machine (local) or a cluster (ray); one shard function for both."""
