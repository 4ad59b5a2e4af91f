"""Typed configuration: schemas of conf/ and the objects built from them."""
