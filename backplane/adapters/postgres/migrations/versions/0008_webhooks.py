"""Webhooks, and which limits were warned of."""

from backplane.adapters.postgres.migrations.ddl import apply

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("0008/webhooks.sql")
