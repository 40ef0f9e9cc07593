"""Run the command line by `python -m wsss_ray`."""

from wsss_ray.cli import main

if __name__ == "__main__":
    main()
