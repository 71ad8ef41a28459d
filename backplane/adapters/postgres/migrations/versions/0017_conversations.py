"""Conversations that are forked, suspended and ended, and summaries of them."""

from backplane.adapters.postgres.migrations.ddl import apply, apply_read_models

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("0017/conversations.sql")
    apply_read_models("0017")
