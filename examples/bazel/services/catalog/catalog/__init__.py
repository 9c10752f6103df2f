"""Catalog: what can be bought."""
