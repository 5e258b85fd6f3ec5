"""What an operator sees of the broker: its log."""
