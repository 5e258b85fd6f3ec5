"""The wire protocol, version 1: pure code that broker, SDK, simulator and fuzzer share. See docs/PROTOCOL.md."""
