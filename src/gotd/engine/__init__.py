"""Engines that map a function over shards: threads on this machine, or a Ray cluster."""
