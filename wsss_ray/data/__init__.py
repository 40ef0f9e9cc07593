"""Read data sets (images, tags and masks), and convert them to the formats of the store."""


def load_sources() -> None:
    """Import the built-in sources, so that a job file can name them. This is cheap: they import neither torch nor Ray."""
    import wsss_ray.data.coco
    import wsss_ray.data.folder
    import wsss_ray.data.sprites
    import wsss_ray.data.voc  # noqa: F401
