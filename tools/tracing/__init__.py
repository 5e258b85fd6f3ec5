"""A receiver of traces, and traces as trees."""
