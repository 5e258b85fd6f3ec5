"""What systemd is told of the broker, and the unit that runs it."""
