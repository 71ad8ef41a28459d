"""The shared language of Parley: envelopes, commands, events, their versions and the topics they travel on.

Imports pydantic and nothing else, so that any program may read the record.
"""
