"""Runs the targets of tests/fuzzing under a fuzzer that is led by coverage."""
