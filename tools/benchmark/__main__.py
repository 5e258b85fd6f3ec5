"""Starts the benchmark: `python -m tools.benchmark`."""

from tools.benchmark.cli import main

if __name__ == "__main__":
    main(prog_name="tools/bench")
