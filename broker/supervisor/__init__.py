"""Plugins as processes: found, planned, started in order, watched, restarted and stopped.

Empty but for this text, because the launcher imports it and must start fast; `supervisor.py` is the door.
"""
