"""The edge: the only place of the broker that knows ZeroMQ."""
