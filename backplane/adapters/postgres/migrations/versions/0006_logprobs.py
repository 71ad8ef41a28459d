"""Logprobs of what was answered."""

from backplane.adapters.postgres.migrations.ddl import apply_read_models

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply_read_models("0006")
