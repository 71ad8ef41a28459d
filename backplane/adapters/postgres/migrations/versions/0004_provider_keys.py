"""Provider keys that are added at run time."""

from backplane.adapters.postgres.migrations.ddl import apply

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("0004/provider_keys.sql")
