"""Ends with status 0 before it reaches the broker: an author who forgot plugin.run()."""
