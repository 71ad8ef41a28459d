"""A tenant's weight and priority; where a queued prompt stands."""

from backplane.adapters.postgres.migrations.ddl import apply, apply_read_models

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("0005/shares.sql")
    apply_read_models("0005")
    apply("0005/queue_place.sql")
