"""Roles of users, invitations, sessions, scopes of keys, and who is suspended."""

from backplane.adapters.postgres.migrations.ddl import apply

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("0011/people.sql")
