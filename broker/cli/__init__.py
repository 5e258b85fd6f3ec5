"""The command line: one family of commands a file, no logic of its own."""
