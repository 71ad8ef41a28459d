"""The bus port on Postgres: a durable log in the schema ``bus``. See docs/adr/0001-bus-semantics.md."""

from backplane.adapters.postgres_bus.bus import PostgresBus

__all__ = ["PostgresBus"]
