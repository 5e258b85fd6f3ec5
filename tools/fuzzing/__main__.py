"""Starts the fuzzer: `python -m tools.fuzzing`."""

from tools.fuzzing.cli import main

if __name__ == "__main__":
    main(prog_name="tools/fuzz")
