"""A question of a chat tool as a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from backplane.ports.bus import MessageTooLarge
from backplane.security.principal import Principal
from command_api import limit_answers
from command_api.admission import Refused
from command_api.allowance import LimitExceeded
from command_api.chat_replies import Question, Taken
from command_api.conversations import NoSuch, TakesNoPrompts
from command_api.idempotency import KeyReused
from command_api.ports import CommandPorts
from command_api.prompt import Accepted, PromptBody

MAY_NOT_ASK = "Nobody may ask here at the moment: who added this chat tool to Parley may not. Add it again."


class NotAsked(Exception):
    """It is no prompt, and will be none. The message is for who asked."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Submits questions."""

    ports: CommandPorts

    async def ask(self, taken: Taken, question: Question, asker: Principal | None) -> Accepted:
        """The prompt that it is, also where it was submitted before; in its thread's conversation, or one that begins.

        Raises NotAsked, and what the bus, the database, the limits and the data keys raise where they are away.
        """
        if asker is None:
            raise NotAsked(MAY_NOT_ASK)
        conversation_id = await self.ports.chat_replies.conversation(taken)
        if conversation_id is not None:
            try:
                return await self._submit(taken, question, asker, conversation_id)
            except (NoSuch, TakesNoPrompts) as gone:
                if isinstance(gone, TakesNoPrompts) and gone.args[0] == "suspended":
                    raise NotAsked("This conversation is suspended. It has to be resumed at Parley first.") from None
            # It was deleted or ended. First nobody knows it any more, so that whoever asks this again begins anew, too.
            await self.ports.chat_replies.begin_anew(taken)
        try:
            return await self._submit(taken, question, asker, None)
        except NoSuch as missing:
            raise NotAsked(f"There is no such {missing.args[0]} any more at Parley.") from None

    async def _submit(
        self, taken: Taken, question: Question, asker: Principal, conversation_id: UUID | None
    ) -> Accepted:
        body: dict[str, Any] = {"input": question.text, "model": taken.model}
        if conversation_id is not None:
            body["conversation_id"] = conversation_id
        elif taken.persona is not None:
            body["persona"] = taken.persona
        prompt = PromptBody.model_validate(body)
        try:
            found = await self.ports.submission.submit(asker, prompt, taken.idempotency_key, None)
        except LimitExceeded as limit:
            self.ports.limit_warnings.notice(limit.exceeded.standings)
            raise NotAsked(limit_answers.problem(limit.exceeded).detail) from None
        except Refused as refused:
            raise NotAsked(str(refused)) from None
        except MessageTooLarge as large:
            raise NotAsked(str(large)) from None
        except KeyReused:
            raise NotAsked("This was asked before in another way. Ask again.") from None
        self.ports.limit_warnings.notice(found.standings)
        return found.accepted
