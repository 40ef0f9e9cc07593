"""Data sources."""


def load_sources() -> None:
    """Import the data sources."""
