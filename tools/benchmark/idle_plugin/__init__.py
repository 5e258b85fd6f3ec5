"""The plugin whose copies idle while the footprint is measured."""
