"""Database migrations, installed as `broker.migrations` and run by `broker.store.migrate`."""
