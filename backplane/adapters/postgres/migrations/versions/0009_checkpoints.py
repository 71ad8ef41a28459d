"""Signed checkpoints of the record, and pruning it."""

from backplane.adapters.postgres.migrations.ddl import apply, apply_read_models

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("0009/checkpoints.sql")
    apply_read_models("0009")
