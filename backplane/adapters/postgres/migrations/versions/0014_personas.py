"""Personas, and which one a prompt was asked as."""

from backplane.adapters.postgres.migrations.ddl import apply, apply_read_models

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("0014/personas.sql")
    apply_read_models("0014")
