"""`python -m ingestor` is the installed `ingestor` command."""

from ingestor.cli import main

if __name__ == "__main__":
    main()
