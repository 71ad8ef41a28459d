"""What a tenant lets be fetched, and its sites."""

from backplane.adapters.postgres.migrations.ddl import apply

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("0015/fetching.sql")
