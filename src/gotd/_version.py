"""The version of gotd."""

__version__ = "0.1.0"
