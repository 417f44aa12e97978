"""`python -m nsclc_mtl` is `mtl`."""

from .cli import main

if __name__ == "__main__":
    main()
