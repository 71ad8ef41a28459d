"""What cannot be handled is set aside with its reason, and nothing blocks behind it.

The brokers' own dead-letter policies count redeliveries, and those counts are lost when a consumer dies; so this is
done by the consumers, on top of the port.
"""

from __future__ import annotations

from prometheus_client import Counter

from backplane.ports.bus import Message, Publisher
from event_schemas.topics import dead_letters

OPERATORS = "operators"
"""The subscription of every dead-letter topic: what it has not acknowledged is what operators still have to see to."""

_set_aside = Counter("parley_dead_letters_total", "Messages that this process set aside", ["topic"])


async def dead_letter(publisher: Publisher, message: Message, reason: str) -> None:
    """Publish ``message`` to its topic's dead-letter topic. The caller acks it afterwards, not before.

    ``reason`` is for operators and carries no content. Raises BusError.
    """
    await publisher.publish(
        dead_letters(message.topic),
        message.payload,
        key=message.key,
        properties={
            **message.properties,
            "dead_letter_reason": reason[:500],
            "dead_letter_topic": message.topic,
            "dead_letter_partition": str(message.partition),
            "dead_letter_position": f"{message.position.ledger}:{message.position.entry}",
        },
    )
    _set_aside.labels(message.topic).inc()
