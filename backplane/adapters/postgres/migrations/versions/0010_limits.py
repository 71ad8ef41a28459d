"""Limits, and what generations have reserved of them."""

from backplane.adapters.postgres.migrations.ddl import apply, apply_read_models

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("0010/limits.sql")
    apply_read_models("0010")
