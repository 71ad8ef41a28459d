"""Chat tools, whose users ask in Slack, Discord or Microsoft Teams."""

from backplane.adapters.postgres.migrations.ddl import apply

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("0021/chat_tools.sql")
