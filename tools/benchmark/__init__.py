"""Measures plugmesh side by side with NATS and bare ZeroMQ; started by `tools/bench`."""
