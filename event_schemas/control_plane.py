"""Control-plane facts: tenants, users, API keys, conversations' names, and who read the record.

Each event has the command that asks for it. The command API decides it in one transaction with its outbox row.
"""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from event_schemas.payload import Content, Payload, Written
from event_schemas.share import Share

KeyRole = Literal["owner", "admin", "member", "auditor", "platform"]
"""What a key or a user may do; `platform` is of the operator's own tenant only."""


class _AboutTenant(Payload):
    tenant_id: UUID

    def subject(self) -> str:
        return f"tenant:{self.tenant_id}"


class ProvisionTenant(_AboutTenant):
    wire_name: ClassVar[str] = "tenant.provision.v1"

    name: str = Field(min_length=1, max_length=200)


class TenantProvisioned(_AboutTenant):
    wire_name: ClassVar[str] = "tenant.provisioned.v1"

    name: str


class SetTenantShare(_AboutTenant):
    wire_name: ClassVar[str] = "tenant.set_share.v1"

    share: Share


class TenantShareSet(_AboutTenant):
    wire_name: ClassVar[str] = "tenant.share_set.v1"

    share: Share


class _AboutUser(Payload):
    user_id: UUID

    def subject(self) -> str:
        return f"user:{self.user_id}"


class InviteUser(_AboutUser):
    wire_name: ClassVar[str] = "user.invite.v2"

    name: str = Field(min_length=1, max_length=200)
    role: KeyRole = "member"


class UserInvited(_AboutUser):
    wire_name: ClassVar[str] = "user.invited.v2"

    name: str
    role: KeyRole = "member"


class _AboutKey(Payload):
    key_id: UUID

    def subject(self) -> str:
        return f"key:{self.key_id}"


class IssueApiKey(_AboutKey):
    wire_name: ClassVar[str] = "key.issue.v2"

    user_id: UUID | None
    role: KeyRole
    name: str = Field(max_length=200)
    expires_at: AwareDatetime | None = None
    models: tuple[str, ...] | None = Field(default=None, description="those that it may ask; none: all")
    personas: tuple[str, ...] | None = Field(default=None, description="those that it may ask as; none: all")


class ApiKeyIssued(_AboutKey):
    wire_name: ClassVar[str] = "key.issued.v2"

    user_id: UUID | None
    role: KeyRole
    name: str
    prefix: str = Field(description="the public part of the key; the secret is in no event")
    expires_at: AwareDatetime | None = None
    models: tuple[str, ...] | None = Field(default=None, description="those that it may ask; none: all")
    personas: tuple[str, ...] | None = Field(default=None, description="those that it may ask as; none: all")


class RevokeApiKey(_AboutKey):
    wire_name: ClassVar[str] = "key.revoke.v1"


class ApiKeyRevoked(_AboutKey):
    wire_name: ClassVar[str] = "key.revoked.v1"


class _AboutConversation(Payload):
    conversation_id: UUID

    def subject(self) -> str:
        return f"conversation:{self.conversation_id}"


class TitleContent(Content):
    title: str = Field(min_length=1, max_length=200)


class RenameConversation(_AboutConversation):
    wire_name: ClassVar[str] = "conversation.rename.v2"

    content: Written = Field(description="a TitleContent")


class ConversationRenamed(_AboutConversation):
    wire_name: ClassVar[str] = "conversation.renamed.v2"

    content: Written = Field(description="a TitleContent")


class DeleteConversation(_AboutConversation):
    wire_name: ClassVar[str] = "conversation.delete.v1"


class ConversationDeleted(_AboutConversation):
    wire_name: ClassVar[str] = "conversation.deleted.v1"


class AuditRead(Payload):
    """Somebody read the event log."""

    wire_name: ClassVar[str] = "audit.read.v1"

    key_id: UUID = Field(description="the key it was read with; zero where an operator did, at the command line")
    filters: dict[str, str]
    exported: bool
    what: Literal["events", "proof", "checkpoints", "trace"] = Field(
        default="events", description="the lines, whether they verify, what signs them, or one request's chain"
    )

    def subject(self) -> str:
        return f"key:{self.key_id}"


class _AboutProviderKey(Payload):
    key_id: UUID

    def subject(self) -> str:
        return f"provider_key:{self.key_id}"


class AddProviderKey(_AboutProviderKey):
    wire_name: ClassVar[str] = "provider_key.add.v1"

    pool: str
    name: str = Field(max_length=200)
    fingerprint: str = Field(description="a hash of the key, which tells nothing of it; the secret is in no command")


class ProviderKeyAdded(_AboutProviderKey):
    """From now on prompts of its owner, a tenant or the platform, are asked with this key too."""

    wire_name: ClassVar[str] = "provider_key.added.v1"

    pool: str
    name: str
    fingerprint: str = Field(description="a hash of the key, which tells nothing of it; the secret is in no event")


class RetireProviderKey(_AboutProviderKey):
    wire_name: ClassVar[str] = "provider_key.retire.v1"


class ProviderKeyRetired(_AboutProviderKey):
    """Nothing new is asked with this key, and its secret is not kept any more."""

    wire_name: ClassVar[str] = "provider_key.retired.v1"


class ProviderKeySetAside(Payload):
    """A provider does not take a key; it is not asked with for a while. Of its owner's log: a tenant's, or the
    platform's."""

    wire_name: ClassVar[str] = "provider_key.set_aside.v1"

    key_id: str = Field(
        description="a hash of the key, which tells nothing of it; the fingerprint of one that was added"
    )
    pool: str
    reason: str = Field(description="stable, such as `key_refused` or `key_exhausted`")
    seconds: int = Field(ge=1, description="then one request tries it again")

    def subject(self) -> str:
        return f"provider_key:{self.key_id}"
