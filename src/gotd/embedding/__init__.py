"""Encoders, and the embeddings of a pool."""
