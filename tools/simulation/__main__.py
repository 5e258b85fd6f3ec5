"""Starts the simulation: `python -m tools.simulation`."""

from tools.simulation.cli import main

if __name__ == "__main__":
    main(prog_name="tools/simulate")
