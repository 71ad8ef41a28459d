"""Answers that are asked for again, since they do not fit their schema."""

from backplane.adapters.postgres.migrations.ddl import apply

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("0019/work.sql")
