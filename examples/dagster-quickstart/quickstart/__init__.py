"""Orders and what they say, as Dagster assets."""
