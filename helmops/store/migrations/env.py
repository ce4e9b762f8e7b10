"""What Alembic runs: migrate over the connection that `helmops.store.schema` hands in."""

from alembic import context

from helmops.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
