"""Makes what a stranger needs beside the text of docs/PROTOCOL.md; started by `tools/vectors`."""
