"""A tenant's weight and priority."""

from backplane.adapters.postgres.migrations.ddl import apply

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("0003/control.sql")
