"""The database migrations, installed as `broker.migrations`; run by `broker.store.migrate`, never by the daemon itself."""
