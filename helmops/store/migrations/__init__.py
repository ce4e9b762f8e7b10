"""Migrations of the state database, run by `helmops.store.schema` at open.

A new one: change `tables.py`, write `versions/vNNNN_what_it_does.py` after the template
`script.py.mako`, add its number to `REVISIONS`. Tests compare what the migrations make with
`tables.py`. A migration that was released is never changed.
"""

#: Every revision of the schema, oldest first. Kept here as well so that a database that is up to
#: date is recognised without importing Alembic.
REVISIONS = ("0001", "0002", "0003")
