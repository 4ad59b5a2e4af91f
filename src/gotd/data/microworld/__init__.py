"""The generated benchmark."""
