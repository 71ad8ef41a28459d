"""Signed checkpoints of the record, and pruning it."""

from backplane.adapters.postgres.migrations.ddl import apply, apply_read_models

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("0007/checkpoints.sql")
    apply_read_models("0007")
