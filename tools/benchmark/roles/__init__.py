"""The endpoint processes of the benchmark: one module a system, importing that system's client only."""
