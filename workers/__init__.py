"""Commands in; inference, events and tokens out."""
