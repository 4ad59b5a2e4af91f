"""Rows in, shards of a pool out."""
