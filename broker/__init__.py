"""The plugmesh daemon: routes events and requests between plugins, and looks after the plugins themselves."""

__version__ = "0.1.0"
