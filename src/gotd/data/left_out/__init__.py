"""Rows of a pool that are left out before it is scored, each with a reason."""
