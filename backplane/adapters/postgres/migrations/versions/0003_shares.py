"""A tenant's weight and priority; where a queued prompt stands."""

from backplane.adapters.postgres.migrations.ddl import apply, apply_read_models

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("0003/shares.sql")
    apply_read_models("0003")
    apply("0003/queue_place.sql")
