"""Starts the disorder: `python -m tools.disorder`."""

from tools.disorder.cli import main

if __name__ == "__main__":
    main(prog_name="tools/chaos")
