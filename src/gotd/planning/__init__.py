"""The cost of a sweep before it runs."""
