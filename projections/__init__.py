"""Events in, read models out. The only writers of the schema ``read_models``.

main, runner   the service: from the bus to the batch and back to the ack
insistence     tries again what cannot be applied yet; names a message that never can
batch          the one transaction of a batch: record, folds, positions
event_log      the record: order and hash, given once; the dedup that guards every projection
table          what a projection is: a table, the rows that an envelope affects, a pure fold
catalog        the list of projections; one module each: conversations, conversation_summaries, messages,
               generations, token_batches, usage, persona_versions, collections, documents, batches, batch_failures
lifecycle      how far a generation has come, whatever order its facts are seen in
state          rows in memory, and folding envelopes into them
writer         loads rows, folds a batch, writes back
positions      how far we have come on each partition of the bus
continuity     reads again what a restored Postgres no longer has; notices a bus that begins anew
rebuild        replays the record into fresh tables; swaps them in, or compares them (comparison)
checkpoints    signs the record's heads; pruning deletes its oldest lines, and signs where it then begins
verify         walks the record's hash chain
"""
