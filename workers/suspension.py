"""What an engine has read of a conversation, kept while the conversation rests.

Nothing depends on it: where anything is wrong with it, it is deleted, and the model reads from the beginning. It holds
the words of the conversation, so it is sealed under the data key of it, and is gone with that key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import UUID

from backplane.ports.database import Database, DatabaseUnavailable
from backplane.ports.suspensions import announced
from backplane.ports.token_stream import Signals
from backplane.security.content import CannotRead, DataKey, DataKeys
from event_schemas.generation import PromptContent, SubmitPrompt
from workers.inference.port import BackendError, InferenceRequest, KeepsStates
from workers.inference.slot_states import outcomes
from workers.keyring import Keyring
from workers.state_files import StateFiles
from workers.window import Said

logger = logging.getLogger(__name__)

_TELLS_NOTHING = (BackendError, CannotRead, DatabaseUnavailable, OSError)
"""Errors that quote nothing of what was written."""


class Suspension:
    """``backend`` was told of ``files`` before it was started."""

    def __init__(self, backend: KeepsStates, files: StateFiles, database: Database, data_keys: DataKeys) -> None:
        self._backend = backend
        self._files = files
        self._database = database
        self._data_keys = data_keys
        self._about = backend.state_facts.encode()
        self._saving: dict[UUID, asyncio.Task[None]] = {}

    async def follow(self, signals: Signals) -> None:
        """Save what is to rest and is held here, until this task is cancelled."""
        async with asyncio.TaskGroup() as tasks, aclosing(announced(signals)) as suspended:
            async for tenant_id, conversation_id in suspended:
                if conversation_id not in self._saving:
                    saving = tasks.create_task(self._save(tenant_id, conversation_id))
                    self._saving[conversation_id] = saving
                    saving.add_done_callback(partial(self._ended, conversation_id))

    @asynccontextmanager
    async def taken_up(
        self, request: InferenceRequest, prompt: SubmitPrompt, key: DataKey
    ) -> AsyncIterator[InferenceRequest]:
        """``request``, to go on from what was saved of its conversation, if there is something; ``key`` is that of the
        conversation. Nothing plain is left once this ends."""
        request = replace(request, state_name=_name(prompt.conversation_id, key))
        saving = self._saving.get(prompt.conversation_id)
        if saving is not None:
            await asyncio.wait([saving])
        taken = self._files.take(prompt.conversation_id)
        if taken is None:
            yield request
            return
        # Shielded, so that who is cancelled meanwhile deletes what comes of it.
        opening = asyncio.get_running_loop().run_in_executor(None, self._opened, taken, key)
        try:
            yield replace(request, state_file=await asyncio.shield(opening))
        finally:
            opening.add_done_callback(_delete)

    async def forget_erased(self, every_s: float = 3600.0) -> None:
        """Delete what no key opens any more, once an hour, until this task is cancelled."""
        while True:
            await asyncio.sleep(every_s)
            with suppress(DatabaseUnavailable, OSError):
                resting = await asyncio.to_thread(self._files.conversations)
                rows = await self._database.at_once(
                    "SELECT conversation_id FROM control.data_keys"
                    " WHERE conversation_id = ANY(CAST(:ids AS uuid[])) AND generation_id IS NULL",
                    ids=resting,
                )
                for conversation_id in {*resting} - {row["conversation_id"] for row in rows}:
                    await asyncio.to_thread(self._files.drop, conversation_id)

    def _ended(self, conversation_id: UUID, saving: asyncio.Task[None]) -> None:
        del self._saving[conversation_id]

    async def _save(self, tenant_id: UUID, conversation_id: UUID) -> None:
        try:
            async with self._database.tenant(tenant_id) as session:
                key = await Keyring(self._data_keys, tenant_id, {}).of(session, conversation_id)
            if key is None:
                return
            plain = await self._backend.save_state(_name(conversation_id, key))
            if plain is None:
                return
            try:
                dropped = await asyncio.to_thread(self._files.put, conversation_id, plain, key, self._about)
            finally:
                plain.unlink(missing_ok=True)
        except Exception as error:
            outcomes.labels("failed").inc()
            cause = str(error) if isinstance(error, _TELLS_NOTHING) else type(error).__name__
            logger.warning("state not saved", extra=_told("state_not_saved", conversation_id, cause))
            return
        if dropped is None:
            outcomes.labels("dropped").inc()
            cause = "it is larger than the pool's suspended_bytes; raise it"
            logger.warning("state not saved", extra=_told("state_not_saved", conversation_id, cause))
            return
        outcomes.labels("dropped").inc(dropped)
        outcomes.labels("saved").inc()

    def _opened(self, taken: Path, key: DataKey) -> Path | None:
        try:
            return self._files.open(taken, key, self._about)
        except (CannotRead, OSError) as error:
            outcomes.labels("refused").inc()
            logger.warning("state not restored", extra={"action": "state_not_restored", "cause": str(error)})
            return None


def is_kept(prompt: SubmitPrompt, content: PromptContent, said: Said) -> bool:
    """Whether all that the model reads for this prompt may be kept under its conversation's key: no words of another
    conversation, or of documents and pages, which are erased elsewhere."""
    own = not (said.forked or content.sources)
    return own and prompt.purpose == "answer" and prompt.keeps_content


def _name(conversation_id: UUID, key: DataKey) -> str:
    """A conversation that was erased goes on under another key, and what was read before is not to be kept by it."""
    return f"{conversation_id}/{key.id}"


def _told(action: str, conversation_id: UUID, cause: str) -> dict[str, str]:
    return {"action": action, "conversation_id": str(conversation_id), "cause": cause}


def _delete(opening: asyncio.Future[Path | None]) -> None:
    plain = opening.result()
    if plain is not None:
        plain.unlink(missing_ok=True)
