"""Artifacts on disk: the store, cache keys, atomic files, memory maps."""
