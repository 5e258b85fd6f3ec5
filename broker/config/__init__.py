"""One configuration from defaults, a TOML or YAML file and the environment: checked as a whole and frozen."""

from broker.config.load import Config, Setting, load
from broker.config.problems import ConfigError, Problem
from broker.config.schema import (
    MIB,
    BrokerSection,
    BusSection,
    DatabaseSection,
    PluginManagerSection,
    ShutdownSection,
    WatchdogSection,
)
from broker.config.values import DatabaseUrl

__all__ = [
    "MIB",
    "BrokerSection",
    "BusSection",
    "Config",
    "ConfigError",
    "DatabaseSection",
    "DatabaseUrl",
    "PluginManagerSection",
    "Problem",
    "Setting",
    "ShutdownSection",
    "WatchdogSection",
    "load",
]
