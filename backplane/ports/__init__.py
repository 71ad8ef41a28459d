"""What Parley needs of the world, said without naming who provides it.

bus            publish, subscribe, acknowledge, read from a position
token_stream   a generation's frames: append, read, follow
database       transactions, tenant-scoped or not
identifiers    new ids
"""
