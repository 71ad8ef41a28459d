"""Control-plane facts about people: how far a tenant and its users may go, how they are invited, and that they came in.

E-mail addresses stand in no event; they can be looked up, and changed, where users are kept.
"""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from event_schemas.control_plane import KeyRole
from event_schemas.payload import Payload

SignInMethod = Literal["password", "oidc", "key"]


class _AboutTenant(Payload):
    tenant_id: UUID

    def subject(self) -> str:
        return f"tenant:{self.tenant_id}"


class SuspendTenant(_AboutTenant):
    wire_name: ClassVar[str] = "tenant.suspend.v1"


class TenantSuspended(_AboutTenant):
    """Nobody of it is let in until it is resumed."""

    wire_name: ClassVar[str] = "tenant.suspended.v1"


class ResumeTenant(_AboutTenant):
    wire_name: ClassVar[str] = "tenant.resume.v1"


class TenantResumed(_AboutTenant):
    wire_name: ClassVar[str] = "tenant.resumed.v1"


class _AboutUser(Payload):
    user_id: UUID

    def subject(self) -> str:
        return f"user:{self.user_id}"


class RenewInvitation(_AboutUser):
    wire_name: ClassVar[str] = "user.renew_invitation.v1"

    expires_at: AwareDatetime


class InvitationRenewed(_AboutUser):
    """A token was made that lets the user set a password, once; earlier ones are void."""

    wire_name: ClassVar[str] = "user.invitation_renewed.v1"

    expires_at: AwareDatetime


class AcceptInvitation(_AboutUser):
    wire_name: ClassVar[str] = "user.accept_invitation.v1"


class InvitationAccepted(_AboutUser):
    """The user set a password; sessions of theirs that there were have ended."""

    wire_name: ClassVar[str] = "user.invitation_accepted.v1"


class ChangeUserRole(_AboutUser):
    wire_name: ClassVar[str] = "user.change_role.v1"

    role: KeyRole


class UserRoleChanged(_AboutUser):
    """No key and no session of the user may do more than this from now on."""

    wire_name: ClassVar[str] = "user.role_changed.v1"

    role: KeyRole


class SuspendUser(_AboutUser):
    wire_name: ClassVar[str] = "user.suspend.v1"


class UserSuspended(_AboutUser):
    wire_name: ClassVar[str] = "user.suspended.v1"


class ResumeUser(_AboutUser):
    wire_name: ClassVar[str] = "user.resume.v1"


class UserResumed(_AboutUser):
    wire_name: ClassVar[str] = "user.resumed.v1"


class RemoveUser(_AboutUser):
    wire_name: ClassVar[str] = "user.remove.v1"


class UserRemoved(_AboutUser):
    """With their keys, sessions, e-mail address and password. What they wrote stays."""

    wire_name: ClassVar[str] = "user.removed.v1"


class _AboutKey(Payload):
    key_id: UUID

    def subject(self) -> str:
        return f"key:{self.key_id}"


class RotateApiKey(_AboutKey):
    wire_name: ClassVar[str] = "key.rotate.v1"

    former_ends_at: AwareDatetime


class ApiKeyRotated(_AboutKey):
    """The key has a new secret; the one before goes on working for a while, any earlier one does not."""

    wire_name: ClassVar[str] = "key.rotated.v1"

    prefix: str = Field(description="the public part of the new secret")
    former_prefix: str = Field(description="that of the one before")
    former_ends_at: AwareDatetime


class _AboutSession(Payload):
    session_id: UUID

    def subject(self) -> str:
        return f"session:{self.session_id}"


class BeginSession(_AboutSession):
    wire_name: ClassVar[str] = "session.begin.v1"

    user_id: UUID | None
    key_id: UUID | None = Field(description="the API key that it was begun with; none: a person signed in")
    method: SignInMethod
    expires_at: AwareDatetime


class SessionBegun(_AboutSession):
    """Somebody signed in."""

    wire_name: ClassVar[str] = "session.begun.v1"

    user_id: UUID | None
    key_id: UUID | None = Field(description="the API key that it was begun with; none: a person signed in")
    method: SignInMethod
    expires_at: AwareDatetime


class EndSession(_AboutSession):
    wire_name: ClassVar[str] = "session.end.v1"


class SessionEnded(_AboutSession):
    """Somebody signed out, or revoked a session of theirs."""

    wire_name: ClassVar[str] = "session.ended.v1"


class SignInRefused(Payload):
    """Somebody tried to sign in as a user of the tenant and was refused; summed by user, reason and minute."""

    wire_name: ClassVar[str] = "sign_in.refused.v1"

    user_id: UUID
    reason: str = Field(description="stable, such as `wrong-password`, `too-many-attempts` or `suspended`")
    minute: AwareDatetime
    count: int = Field(ge=1)

    def subject(self) -> str:
        return f"user:{self.user_id}"
