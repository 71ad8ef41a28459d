"""What Postgres and the journals hold after the kills, and what in it contradicts what was promised."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from backplane.ports.database import Database, Row
from backplane.security.content import DataKey, DataKeys, opened_row
from backplane.wiring.embedded import completed
from backplane.wiring.services import master_key
from tests.chaos.house import House, Killed
from tests.chaos.journalled_worker import Produced, read
from tests.chaos.talkers import Talk

ENDINGS = ("generation.completed.v3", "generation.failed.v3", "generation.cancelled.v3")
_NEAR = timedelta(seconds=3)


@dataclass(frozen=True)
class Told:
    """One line of the record."""

    at: datetime
    type: str
    data: Row

    def __str__(self) -> str:
        attempt = f" attempt {self.data['attempt']}" if "attempt" in self.data else ""
        more = f" {json.dumps(self.data['usage'])}" if "usage" in self.data else ""
        if "first_seq" in self.data:
            more = f" seq {self.data['first_seq']}+{self.data['count']}"
        return f"{self.at:%H:%M:%S.%f} {self.type}{attempt}{more}"


@dataclass(frozen=True)
class Truth:
    """By generation, and where there is one, attempt. Of all tenants."""

    record: dict[str, list[Told]]
    generations: dict[str, Row]
    answers: dict[str, Row]
    """Rows of `messages` that models wrote."""
    usage: dict[str, dict[int, Row]]
    claims: dict[str, Row]
    produced: dict[str, dict[int, Produced]]
    keys: dict[str, DataKey]
    """By conversation."""

    @classmethod
    async def of(cls, house: House, owner: Database) -> Truth:
        async with owner.system() as session:
            lines = await session.all(
                'SELECT "time", type, subject, envelope FROM read_models.event_log ORDER BY tenant_id, sequence'
            )
            generations = await session.all("SELECT * FROM read_models.generations")
            answers = await session.all("SELECT * FROM read_models.messages WHERE role = 'assistant'")
            usage = await session.all("SELECT * FROM read_models.usage")
            claims = await session.all("SELECT *, terminal IS NOT NULL AS ended FROM work.claims")
            keys = await session.all("SELECT tenant_id, conversation_id, wrapped FROM control.data_keys")
        data_keys = DataKeys(master_key(completed(house.settings)))
        record: dict[str, list[Told]] = defaultdict(list)
        for line in lines:
            told = Told(line["time"], line["type"], json.loads(line["envelope"])["data"])
            record[line["subject"].removeprefix("generation:")].append(told)
        by_attempt: dict[str, dict[int, Row]] = defaultdict(dict)
        for row in usage:
            by_attempt[str(row["generation_id"])][row["attempt"]] = row
        produced: dict[str, dict[int, Produced]] = defaultdict(dict)
        for (generation_id, attempt), what in read(house.journals).items():
            produced[generation_id][attempt] = what
        return cls(
            record,
            {str(row["id"]): row for row in generations},
            {str(row["id"]): row for row in answers},
            by_attempt,
            {str(row["generation_id"]): row for row in claims},
            produced,
            {
                str(row["conversation_id"]): await data_keys.unwrap(
                    row["wrapped"], row["tenant_id"], row["conversation_id"]
                )
                for row in keys
            },
        )

    def text(self, written: Row | None, conversation_id: str) -> str:
        """Of an answer, as it is stored or published."""
        return "" if written is None else str(opened_row(written, self.keys[conversation_id])["text"])

    def endings(self, generation_id: str) -> list[Told]:
        return [told for told in self.record.get(generation_id, ()) if told.type in ENDINGS]

    def faults(self, talk: Talk) -> list[str]:
        """What is wrong with one prompt."""
        if talk.broken is not None:
            return [talk.broken]
        generation_id = talk.generation_id
        endings = self.endings(generation_id)
        if len(endings) != 1:
            return [f"it ended {len(endings)} times"]
        (ending,) = endings
        answer, row, message = talk.answer, self.generations[generation_id], self.answers[generation_id]
        said = ending.type.split(".")[1]
        attempt = ending.data["attempt"]
        conversation_id = ending.data["conversation_id"]
        text = self.text(ending.data["content"], conversation_id)
        faults = [
            f"{what}: {found!r}, and the record says {expected!r}"
            for what, found, expected in (
                ("its client was told of the end", answer.told[-1], said),
                ("its client was told of the attempt", answer.attempt, attempt),
                ("its client has the text", answer.text, text),
                ("the stored message is", self.text(message["answer"], conversation_id), text),
                ("the generation's status is", row["status"], said),
                ("the generation's attempt is", row["attempt"], attempt),
                ("its claim has the attempt", self.claims[generation_id]["attempt"], attempt),
                ("its client was told of the usage", answer.detail["usage"], ending.data["usage"]),
                (
                    "prompts in the record",
                    sum(told.type == "prompt.submit.v3" for told in self.record[generation_id]),
                    1,
                ),
            )
            if found != expected
        ]
        scripted = "".join(talk.tokens(attempt)) if attempt else ""
        if said == "completed" and text != scripted:
            faults.append(f"the backend was told to say {scripted!r}, stored is {text!r}")
        if not scripted.startswith(text):
            faults.append(f"{text!r} is no beginning of what the backend said, {scripted!r}")
        if said == "cancelled" and not talk.cancelled:
            faults.append("nobody cancelled it")
        if said == "failed" and ending.data["reason"] != "attempts_exhausted":
            faults.append(f"it failed: {ending.data['reason']}: {ending.data['detail']}")
        return [*faults, *self._usage_faults(talk, ending)]

    def _usage_faults(self, talk: Talk, ending: Told) -> Iterable[str]:
        last: int = ending.data["attempt"]
        used = self.usage.get(talk.generation_id, {})
        produced = self.produced.get(talk.generation_id, {})
        if sorted(used) != list(range(1, last + 1)):
            yield f"usage stands for the attempts {sorted(used)}, it ended in attempt {last}"
        for attempt in sorted(produced.keys() - used.keys()):
            yield f"attempt {attempt} was run, and is not accounted for"
        for attempt, what in sorted(produced.items()):
            if len(what.begun) != 1:
                yield f"attempt {attempt} was begun {len(what.begun)} times: {what.begun}"
        for attempt, row in sorted(used.items()):
            tokens = row["input_tokens"], row["output_tokens"]
            what = produced.get(attempt, Produced())
            if attempt == last and ending.type == "generation.completed.v3":
                if (row["source"], tokens) != ("provider", what.finished):
                    yield f"attempt {attempt}: {row['source']} {tokens}, the backend produced {what.finished}"
                if tokens != (talk.asked_words, len(talk.tokens(attempt))):
                    yield f"attempt {attempt}: {tokens}, scripted were {talk.asked_words, len(talk.tokens(attempt))}"
            elif attempt in produced:
                if row["source"] != "estimated":
                    yield f"attempt {attempt} was lost or stopped, and its usage says {row['source']}, {tokens}"
                if tokens[1] > what.tokens:
                    yield f"attempt {attempt}: {tokens[1]} tokens estimated, the backend produced only {what.tokens}"
            elif tokens[1]:
                yield f"attempt {attempt}: {tokens}, but no backend ever ran it"

    def story(self, talk: Talk, killed: Sequence[Killed]) -> str:
        """Everything that is known of one prompt, and what was killed meanwhile."""
        if not talk.accepted:
            return f"a prompt that was never accepted, of tenant {talk.tenant.id}, sent {talk.repeats + 1} times"
        generation_id = talk.generation_id
        answer = talk.answer
        told = self.record.get(generation_id, [])
        assert talk.accepted_at is not None
        begin = talk.accepted_at - _NEAR
        end = max((one.at for one in told), default=datetime.now(UTC)) + _NEAR
        runs = "\n".join(
            f"  attempt {attempt} in {what.begun}: {what.tokens} tokens, finished {what.finished}"
            for attempt, what in sorted(self.produced.get(generation_id, {}).items())
        )
        used = "\n".join(
            f"  attempt {attempt}: {row['source']} {row['input_tokens']} in, {row['output_tokens']} out"
            for attempt, row in sorted(self.usage.get(generation_id, {}).items())
        )
        claim = self.claims.get(generation_id)
        state = "none" if claim is None else f"attempt {claim['attempt']}, {'ended' if claim['ended'] else 'open'}"
        return "\n".join(
            [
                f"generation {generation_id}, tenant {talk.tenant.id}, accepted {talk.accepted_at:%H:%M:%S.%f} "
                f"after {talk.repeats} repeats",
                f"its client was told {_short(answer.told)}; stands at {answer.cursor}; {answer.cuts} cuts",
                f"its claim: {state}",
                "the record:",
                *(f"  {one}" for one in told),
                "backends:",
                runs,
                "usage:",
                used,
                "killed meanwhile:",
                *(f"  {kill}" for kill in killed if begin <= kill.at <= end),
            ]
        )


def _short(told: Sequence[str]) -> str:
    """``token`` many times becomes one word."""
    runs: list[list[str]] = []
    for name in told:
        if runs and runs[-1][0] == name:
            runs[-1].append(name)
        else:
            runs.append([name])
    return ", ".join(f"{len(run)} × {run[0]}" if len(run) > 1 else run[0] for run in runs) or "nothing"
