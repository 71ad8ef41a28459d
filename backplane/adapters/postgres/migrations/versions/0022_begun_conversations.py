"""Conversations that are begun before anything is said."""

from backplane.adapters.postgres.migrations.ddl import apply_read_models

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply_read_models("0022")
