"""What takes a while to be imported, and so waits until it is needed."""

HEAVY = {"torch", "ray", "pandas", "numba", "scipy", "torchvision", "matplotlib", "aiohttp", "requests", "jinja2"}
TABLES = {"numpy", "pyarrow", "PIL"}
