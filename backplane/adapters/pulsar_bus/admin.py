"""Pulsar's admin REST API, version 2: what clients cannot do over the binary protocol."""

from __future__ import annotations

import ssl
from datetime import timedelta
from typing import Any

import httpx

from backplane.adapters.pulsar_bus.address import PulsarAddress
from backplane.adapters.pulsar_bus.errors import missing
from backplane.ports.bus import BusRefused, BusUnavailable, Position, Start
from backplane.security.handshake import handshake_failure

_EXISTS = httpx.codes.CONFLICT
_MISSING = httpx.codes.PRECONDITION_FAILED
"""What it says to a subscription of a topic that does not exist and may not come into being by that."""
_STARTS = {
    Start.EARLIEST: {"ledgerId": -1, "entryId": -1, "partitionIndex": -1},
    # MessageId.latest of Pulsar's Java client: Long.MAX_VALUE twice.
    Start.LATEST: {"ledgerId": 2**63 - 1, "entryId": 2**63 - 1, "partitionIndex": -1},
}


class Admin:
    def __init__(self, address: PulsarAddress, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._opened: httpx.AsyncClient | None = None

    async def set_up_namespace(self, retention: timedelta) -> None:
        """Make the tenant and the namespace where they are missing, and set the policies that Parley relies on.

        Raises BusUnavailable, BusRefused.
        """
        address = self._address
        tenant = f"/tenants/{address.tenant}"
        namespace = f"/namespaces/{address.tenant}/{address.namespace}"
        if (await self._ask("GET", namespace, allowed={404})).status_code == 404:
            if (await self._ask("GET", tenant, allowed={404})).status_code == 404:
                clusters = (await self._ask("GET", "/clusters")).json()
                if not clusters:
                    raise BusUnavailable(f"Pulsar at {address.admin_url} has no cluster yet: it is still starting")
                await self._ask("PUT", tenant, {"allowedClusters": clusters}, allowed={_EXISTS})
            await self._ask("PUT", namespace, {}, allowed={_EXISTS})
        minutes = int(retention.total_seconds() // 60)
        await self._ask("POST", f"{namespace}/retention", {"retentionTimeInMinutes": minutes, "retentionSizeInMB": -1})
        # A name that is wrong must fail, and a topic that nobody reads yet must stay.
        await self._ask("POST", f"{namespace}/autoTopicCreation", {"allowAutoTopicCreation": False})
        await self._ask(
            "POST",
            f"{namespace}/inactiveTopicPolicies",
            {
                "inactiveTopicDeleteMode": "delete_when_no_subscriptions",
                "maxInactiveDurationSeconds": 1,
                "deleteWhileInactive": False,
            },
        )

    async def allow(self, role: str) -> None:
        """Let ``role`` produce and consume in the namespace. Raises BusUnavailable, BusRefused."""
        namespace = f"/namespaces/{self._address.tenant}/{self._address.namespace}"
        await self._ask("POST", f"{namespace}/permissions/{role}", ["produce", "consume"])

    async def create_topic(self, topic: str, partitions: int) -> None:
        """Make the topic if it is not there. Raises BusUnavailable, BusRefused."""
        await self._ask("PUT", f"{self._path(topic)}/partitions", partitions, allowed={_EXISTS})

    async def create_subscription(self, topic: str, subscription: str, start: Start) -> None:
        """Make the subscription if it is not there. Raises UnknownTopic, BusUnavailable, BusRefused."""
        await self._of_topic(topic, "PUT", f"/subscription/{subscription}", _STARTS[start], allowed={_EXISTS})

    async def backlog(self, topic: str, subscription: str) -> list[int]:
        """Messages not yet acknowledged, by partition. Raises UnknownTopic, BusUnavailable, BusRefused."""
        stats = await self._of_topic(topic, "GET", "/partitioned-stats?perPartition=true&getPreciseBacklog=true")
        partitions = self._by_index(topic, stats.json())
        counts = [each["subscriptions"].get(subscription, {}).get("msgBacklog") for each in partitions]
        if None in counts:
            # A subscription that is not there yet would begin with the oldest message kept.
            kept = [each["numberOfEntries"] for each in await self._ledgers(topic)]
            counts = [all_ if count is None else count for count, all_ in zip(counts, kept, strict=True)]
        return counts

    async def heads(self, topic: str) -> list[Position | None]:
        """The newest position of each partition, by index. Raises UnknownTopic, BusUnavailable, BusRefused."""
        return [_filled(partition, partition["lastConfirmedEntry"]) for partition in await self._ledgers(topic)]

    async def acknowledged(self, topic: str, subscription: str) -> list[Position | None]:
        """Up to where each partition is acknowledged without a gap. Raises UnknownTopic, BusUnavailable, BusRefused."""
        cursors = [(each, each["cursors"].get(subscription)) for each in await self._ledgers(topic)]
        return [None if cursor is None else _filled(each, cursor["markDeletePosition"]) for each, cursor in cursors]

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.aclose()
            self._opened = None

    async def _ledgers(self, topic: str) -> list[dict[str, Any]]:
        stats = await self._of_topic(topic, "GET", "/partitioned-internalStats")
        return self._by_index(topic, stats.json())

    def _by_index(self, topic: str, stats: dict[str, Any]) -> list[dict[str, Any]]:
        # A broker that is starting or stopping leaves out the partitions that it has not loaded, and where that is all
        # of them, it gives one that is called as the topic itself.
        found = {name.rpartition("-partition-")[2]: each for name, each in stats["partitions"].items()}
        indexes = [str(index) for index in range(stats["metadata"]["partitions"])]
        if found.keys() != set(indexes):
            raise BusUnavailable(
                f"Pulsar's admin API at {self._address.admin_url} does not know all partitions of {topic!r} now: the "
                "broker is starting or stopping"
            )
        return [found[index] for index in indexes]

    def _path(self, topic: str) -> str:
        return f"/persistent/{self._address.tenant}/{self._address.namespace}/{topic}"

    async def _of_topic(
        self, topic: str, method: str, path: str, body: object = None, allowed: set[int] | None = None
    ) -> httpx.Response:
        answer = await self._ask(method, self._path(topic) + path, body, {404, _MISSING, *(allowed or ())})
        if answer.status_code in (404, _MISSING):
            raise missing(self._address, topic)
        return answer

    async def _ask(
        self, method: str, path: str, body: object = None, allowed: set[int] | None = None
    ) -> httpx.Response:
        url = f"{self._address.admin_url.rstrip('/')}/admin/v2{path}"
        try:
            answer = await self._client.request(method, url, json=body)
        except (httpx.TransportError, AttributeError) as error:
            # anyio asks for the address of a socket that is gone where a connection is reset as soon as it is made.
            failure = handshake_failure(error)
            if failure is not None:
                raise BusUnavailable(
                    f"Pulsar's admin API at {self._address.admin_url}: {failure}; check bus.pulsar.ca_file, and that "
                    "bus.pulsar.admin_url names the host as the certificate does"
                ) from None
            raise BusUnavailable(
                f"Pulsar's admin API at {self._address.admin_url} does not answer ({type(error).__name__}): check that "
                "the broker runs, and bus.pulsar.admin_url"
            ) from None
        if answer.is_success or answer.status_code in (allowed or ()):
            return answer
        doing = f"{method} {path.partition('?')[0]}"
        if answer.status_code in (401, 403):
            raise BusRefused(
                f"Pulsar's admin API at {self._address.admin_url} does not allow {doing} ({answer.status_code}): "
                f"{self._address.token_advice}; setting up needs a role that administers the tenant"
            )
        said = f"{answer.status_code} {_reason(answer)}".strip()
        if answer.is_server_error or answer.status_code in (409, 429):
            raise BusUnavailable(f"Pulsar's admin API at {self._address.admin_url} failed at {doing}: {said}")
        raise BusRefused(f"Pulsar's admin API at {self._address.admin_url} refused {doing}: {said}")

    @property
    def _client(self) -> httpx.AsyncClient:
        if self._opened is None:
            address = self._address
            self._opened = httpx.AsyncClient(
                headers={"Authorization": f"Bearer {address.token}"} if address.token else None,
                verify=ssl.create_default_context(cafile=address.ca_file) if address.ca_file else True,
                timeout=self._timeout_s,
                trust_env=False,
            )
        return self._opened


def _filled(partition: dict[str, Any], position: str) -> Position | None:
    """The last message up to ``position``; None where none is kept."""
    ledger, entry = map(int, position.split(":"))
    if entry >= 0:
        return Position(ledger, entry)
    # Before the first message of a ledger: a broker opens one whenever it loads a topic.
    filled = [each for each in partition["ledgers"] if each["entries"] and each["ledgerId"] < ledger]
    return Position(filled[-1]["ledgerId"], filled[-1]["entries"] - 1) if filled else None


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("reason", ""))[:200]
    except ValueError:
        return ""
