"""Tools, images and reasoning in the messages."""

from backplane.adapters.postgres.migrations.ddl import apply_read_models

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply_read_models("0002")
