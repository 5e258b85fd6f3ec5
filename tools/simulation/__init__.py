"""Runs the simulation of tests/simulation from the command line."""
