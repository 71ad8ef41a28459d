"""Collections of documents, and their chunks."""

from backplane.adapters.postgres.migrations.ddl import apply, apply_read_models

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("0016/knowledge.sql")
    apply_read_models("0016")
