"""Who publishes reads no messages; who paid for an attempt."""

from backplane.adapters.postgres.migrations.ddl import apply, apply_read_models

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("0012/bus.sql")
    apply_read_models("0012")
