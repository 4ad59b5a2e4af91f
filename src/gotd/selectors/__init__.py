"""Selection methods, one a module, and their registry."""
