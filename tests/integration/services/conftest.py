"""A MariaDB server for the services that can use one."""

from tests.mariadb import mariadb, mariadb_url

__all__ = ["mariadb", "mariadb_url"]
