"""Read models and token streams out. Writes nothing; that somebody read the event log is published as a fact."""
