"""Events in, read models out. The only writers of the schema ``read_models``.

table          what a projection is: a table, the rows that an envelope affects, a pure fold
catalog        the list of projections
state          rows in memory, and folding envelopes into them
event_log      the record: order and hash, given once; the dedup that guards every projection
writer         loads rows, folds a batch, writes back
batch          the one transaction of a batch
runner         from the bus to the batch and back to the ack
rebuild        replays the record into fresh tables; checks them or swaps them in
verify         walks the record's hash chain
"""
