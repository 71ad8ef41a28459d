"""Prompts that are handed on to another pool."""

from backplane.adapters.postgres.migrations.ddl import apply

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("0003/work.sql")
