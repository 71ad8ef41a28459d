"""Every wire name this release knows, and the class that holds its newest version."""

from __future__ import annotations

from functools import lru_cache

from event_schemas import (
    batches,
    chat_tools,
    control_plane,
    conversations,
    dead_letters,
    erasure,
    fetching,
    generation,
    knowledge,
    limit_warning,
    limits,
    people,
    personas,
    webhooks,
)
from event_schemas.payload import WIRE_NAME, Payload

COMMANDS: tuple[type[Payload], ...] = (
    generation.SubmitPrompt,
    generation.CancelGeneration,
    control_plane.ProvisionTenant,
    control_plane.SetTenantShare,
    control_plane.InviteUser,
    control_plane.IssueApiKey,
    control_plane.RevokeApiKey,
    control_plane.RenameConversation,
    control_plane.DeleteConversation,
    control_plane.AddProviderKey,
    control_plane.RetireProviderKey,
    erasure.EraseContent,
    erasure.EraseUser,
    erasure.SetContentPolicy,
    webhooks.AddWebhook,
    webhooks.RemoveWebhook,
    limits.SetLimits,
    people.SuspendTenant,
    people.ResumeTenant,
    people.RenewInvitation,
    people.AcceptInvitation,
    people.ChangeUserRole,
    people.SuspendUser,
    people.ResumeUser,
    people.RemoveUser,
    people.RotateApiKey,
    people.BeginSession,
    people.EndSession,
    personas.SavePersona,
    personas.RemovePersona,
    fetching.SetFetching,
    fetching.AddSite,
    fetching.ChangeSite,
    fetching.RemoveSite,
    knowledge.CreateCollection,
    knowledge.ChangeCollection,
    knowledge.DeleteCollection,
    knowledge.IngestDocument,
    knowledge.DeleteDocument,
    conversations.ForkConversation,
    conversations.SuspendConversation,
    conversations.ResumeConversation,
    conversations.EndConversation,
    batches.SubmitBatch,
    batches.CancelBatch,
    batches.DeleteBatch,
    chat_tools.AddChatTool,
    chat_tools.SetChatToolSecrets,
    chat_tools.RemoveChatTool,
)

EVENTS: tuple[type[Payload], ...] = (
    generation.PromptRejected,
    generation.GenerationStarted,
    generation.GenerationRestarted,
    generation.AttemptLost,
    generation.TokensEmitted,
    generation.GenerationCompleted,
    generation.GenerationFailed,
    generation.GenerationCancelled,
    control_plane.TenantProvisioned,
    control_plane.TenantShareSet,
    control_plane.UserInvited,
    control_plane.ApiKeyIssued,
    control_plane.ApiKeyRevoked,
    control_plane.ConversationRenamed,
    control_plane.ConversationDeleted,
    control_plane.AuditRead,
    control_plane.ProviderKeyAdded,
    control_plane.ProviderKeyRetired,
    control_plane.ProviderKeySetAside,
    erasure.ContentErased,
    erasure.UserErased,
    erasure.ContentPolicySet,
    webhooks.WebhookAdded,
    webhooks.WebhookRemoved,
    webhooks.WebhookDisabled,
    limit_warning.LimitNearlyReached,
    limits.LimitsSet,
    people.TenantSuspended,
    people.TenantResumed,
    people.InvitationRenewed,
    people.InvitationAccepted,
    people.UserRoleChanged,
    people.UserSuspended,
    people.UserResumed,
    people.UserRemoved,
    people.ApiKeyRotated,
    people.SessionBegun,
    people.SessionEnded,
    people.SignInRefused,
    personas.PersonaSaved,
    personas.PersonaRemoved,
    dead_letters.DeadLetterDiscarded,
    dead_letters.DeadLetterReplayed,
    fetching.FetchingSet,
    fetching.SiteAdded,
    fetching.SiteChanged,
    fetching.SiteRemoved,
    knowledge.CollectionCreated,
    knowledge.CollectionChanged,
    knowledge.CollectionDeleted,
    knowledge.IngestionProgressed,
    knowledge.DocumentIngested,
    knowledge.IngestionFailed,
    knowledge.DocumentDeleted,
    conversations.ConversationForked,
    conversations.ConversationSuspended,
    conversations.ConversationResumed,
    conversations.ConversationEnded,
    conversations.ConversationTitled,
    conversations.ConversationSummarised,
    batches.BatchSubmitted,
    batches.BatchLinesFailed,
    batches.BatchCancelled,
    batches.BatchExpired,
    batches.BatchCompleted,
    batches.BatchDeleted,
    chat_tools.ChatToolAdded,
    chat_tools.ChatToolSecretsSet,
    chat_tools.ChatToolRemoved,
)


@lru_cache(maxsize=256)
def split(wire_name: str) -> tuple[str, int]:
    """``generation.completed.v2`` → ``("generation.completed", 1)``.

    Raises:
        ValueError: it is not a wire name.
    """
    match = WIRE_NAME.match(wire_name)
    if match is None:
        raise ValueError(f"{wire_name[:80]!r} is not a wire name like 'thing.happened.v1'")
    return match["base"], int(match["version"])


BY_BASE: dict[str, type[Payload]] = {split(cls.wire_name)[0]: cls for cls in (*COMMANDS, *EVENTS)}
"""Name without version → the class of its newest version."""
