"""HTTP in, commands out: validates, admits, publishes. Writes no read model."""
