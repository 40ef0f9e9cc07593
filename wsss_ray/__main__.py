"""`python -m wsss_ray`: the command line."""

from wsss_ray.cli import main

if __name__ == "__main__":
    main()
