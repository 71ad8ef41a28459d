"""Usage of embeddings."""

from backplane.adapters.postgres.migrations.ddl import apply_read_models

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply_read_models("0020")
