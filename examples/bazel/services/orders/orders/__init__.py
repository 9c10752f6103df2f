"""Orders: what has been bought."""
