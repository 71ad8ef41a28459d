"""The spine: roles, control plane, claims, read models and the Postgres bus."""

from backplane.adapters.postgres.migrations.ddl import apply, apply_read_models

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    for file in ("roles", "control", "work", "bus", "positions"):
        apply(f"0001/{file}.sql")
    apply_read_models("0001")
