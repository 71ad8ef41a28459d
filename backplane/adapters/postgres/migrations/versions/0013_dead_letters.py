"""Dead letters over the API: the relay's role may consume them, and nothing else."""

from backplane.adapters.postgres.migrations.ddl import apply

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("0013/bus.sql")
