"""`python -m gatekeep` is the `gatekeep` command."""

from gatekeep._cli import main

if __name__ == "__main__":
    main()
