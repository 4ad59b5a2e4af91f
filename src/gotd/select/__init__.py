"""Select from anybody's data: own target and candidates in, a folder or rows out.

`pipeline` is the way through; `gotd select`, `gotd diff` and `gotd.GOTD` stand on it.
"""
