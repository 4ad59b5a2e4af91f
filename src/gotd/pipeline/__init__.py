"""The two-stage protocol and the selection from user data, as steps."""
