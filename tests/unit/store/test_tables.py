from datetime import UTC, datetime, timedelta, timezone

from sqlalchemy import create_engine, insert, select

from helmops.store import tables


def test_a_moment_of_any_zone_comes_back_as_the_same_moment_in_utc() -> None:
    engine = create_engine("sqlite://")
    tables.metadata.create_all(engine)
    moment = datetime(2026, 3, 29, 2, 30, 0, 123456, timezone(timedelta(hours=2)))
    with engine.begin() as connection:
        connection.execute(
            insert(tables.releases),
            {
                "namespace": "a",
                "name": "b",
                "release_namespace": "a",
                "release_name": "b",
                "status": {},
                "updated_at": moment,
            },
        )
        found = connection.execute(select(tables.releases.c.updated_at)).scalar_one()
    engine.dispose()
    assert found == moment
    assert found.tzinfo is UTC
