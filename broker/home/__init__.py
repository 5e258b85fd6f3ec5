"""The home of a broker: its directories, its keys, and the lock that makes it one broker's."""

from broker.home.layout import OPERATOR, CurvePair, Home
from broker.home.lock import HomeBusy, HomeError, HomeLock, prepare_socket

__all__ = ["OPERATOR", "CurvePair", "Home", "HomeBusy", "HomeError", "HomeLock", "prepare_socket"]
