"""`parley recover`: after the bus or Postgres was lost, what was promised goes on."""

from __future__ import annotations

from backplane.ports.freshness import caught_up
from backplane.settings import Settings
from backplane.wiring.embedded import owner_database
from backplane.wiring.operations import operator_bus, topics
from cli.failures import ConfigurationError, TryAgain
from event_schemas.codec import NewerVersion
from workers.recovery import SKEW_S, recover

_CAUGHT_UP_S = 60.0


async def run(settings: Settings) -> None:
    """Raises TryAgain where the projections do not catch up, ConfigurationError, DatabaseUnavailable, BusError."""
    database = owner_database(settings)
    try:
        async with operator_bus(settings) as bus:
            if not await caught_up(bus, database, topics(settings), _CAUGHT_UP_S):
                raise TryAgain(
                    f"the projections have not passed what the bus holds within {_CAUGHT_UP_S:g} s: see that they run, "
                    "and try again; only then is known what has not ended"
                )
            recovered = await recover(database, bus, settings.worker.keep_claims_hours)
    except NewerVersion as error:
        raise ConfigurationError(str(error)) from None
    finally:
        await database.close()
    print(f"claims that the record says have ended: {recovered.closed} closed")
    print(f"data keys that were erased once: {recovered.erased} deleted again")
    if recovered.unsure:
        print(
            f"data keys made within {SKEW_S} s of an erasure: {len(recovered.unsure)} left, since one "
            "that is younger is in use; erase again what should be gone:"
        )
        for tenant_id, conversation_id in recovered.unsure:
            print(f"  tenant {tenant_id}, conversation {conversation_id}")
    print(f"prompts that have not ended: {recovered.prompts} published again")
    if recovered.gone:
        pools = ", ".join(f"{pool} ({count})" for pool, count in sorted(recovered.gone.items()))
        print(f"prompts of pools that are gone: {sum(recovered.gone.values())} left as they are: {pools}")
    print(f"documents that have not ended: {recovered.documents} published again")
