"""Data sets: where images, tags and masks come from, and the forms in which the store holds them."""


def load_sources() -> None:
    """Import the built-in sources, so that a job file can name them. Cheap: they import neither torch nor Ray."""
    import wsss_ray.data.coco
    import wsss_ray.data.folder
    import wsss_ray.data.sprites
    import wsss_ray.data.voc  # noqa: F401
