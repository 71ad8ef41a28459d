"""What Pulsar's results mean to whoever uses the port."""

from __future__ import annotations

from pulsar import Result
from pulsar.asyncio import PulsarException

from backplane.adapters.pulsar_bus.address import PulsarAddress
from backplane.ports.bus import BusError, BusRefused, BusUnavailable, MessageTooLarge, UnknownTopic

_MISSING = {Result.TopicNotFound, Result.InvalidTopicName, Result.TopicTerminated, Result.SubscriptionNotFound}
_FORBIDDEN = {Result.AuthorizationError, Result.AuthenticationError, Result.ErrorGettingAuthenticationData}
_UNUSABLE = {
    Result.InvalidUrl,
    Result.InvalidConfiguration,
    Result.UnsupportedVersionError,
    Result.NotAllowedError,
}


def translated(error: PulsarException, address: PulsarAddress, topic: str, doing: str) -> BusError:
    """``error`` as the port says it, with what to do. ``doing`` is for people: "publish to", "subscribe to"."""
    result = error.error()
    if result in _MISSING:
        return missing(address, topic)
    if result in _FORBIDDEN:
        return BusRefused(
            f"Pulsar does not let us {doing} {topic!r} in {address} ({result.name}): {address.token_advice}; its "
            "role needs to produce and consume in that namespace"
        )
    if result in _UNUSABLE:
        return BusRefused(f"Pulsar cannot be used to {doing} {topic!r} in {address} ({result.name}): check bus.pulsar")
    if result == Result.ConsumerBusy:
        return BusRefused(
            f"a subscription of topic {topic!r} in {address} is used in another mode by somebody who is connected: "
            "stop them, or give them a subscription of their own"
        )
    if result == Result.MessageTooBig:
        return MessageTooLarge(f"a message for topic {topic!r} is larger than the broker takes (its maxMessageSize)")
    if result == Result.ConnectError:
        return silent(
            address,
            f"cannot be reached to {doing} {topic!r} ({result.name}): check that it runs, bus.pulsar.url, and, where "
            "that begins with pulsar+ssl, bus.pulsar.ca_file and that the certificate names the host",
        )
    return silent(address, f"cannot {doing} {topic!r} now ({result.name})")


def silent(address: PulsarAddress, said: str) -> BusUnavailable:
    """What a broker that does not answer in time means: to a token that has expired its client says nothing else, yet
    what was published before that was noticed may have arrived."""
    advice = "" if address.token_expired_at is None else f"; {address.token_advice}"
    return BusUnavailable(f"Pulsar at {address.url} {said}{advice}")


def missing(address: PulsarAddress, topic: str) -> UnknownTopic:
    return UnknownTopic(
        f"there is no topic {topic!r} in {address}: check bus.pulsar.tenant and bus.pulsar.namespace; "
        "`parley pulsar setup` makes the topics that the settings name"
    )
