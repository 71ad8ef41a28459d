"""Batches, their lines, and which generations are theirs."""

from backplane.adapters.postgres.migrations.ddl import apply, apply_read_models

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply_read_models("0018")
    apply("0018/batches.sql")
    apply("0018/queue_place.sql")
