"""The servers under measurement: how each is started, addressed and stopped."""
