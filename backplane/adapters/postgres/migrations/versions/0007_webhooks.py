"""Webhooks, and which limits were warned of."""

from backplane.adapters.postgres.migrations.ddl import apply

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("0007/webhooks.sql")
