"""The token stream and signals on Redis: streams for the backlog, pub/sub for the tail."""
