"""`python -m squall` is `squall`."""

from squall.cli import main

if __name__ == "__main__":
    main()
