"""Alembic's entry point; `broker.store.migrate` hands it a connection that is in a transaction."""

from alembic import context

from broker.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
