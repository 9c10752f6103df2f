"""Words that the services say."""

from pathlib import Path


def greeting() -> str:
    """Return the greeting, from the file beside this module."""
    return Path(__file__).with_name("greeting.txt").read_text().strip()
