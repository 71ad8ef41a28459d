"""The front door: all APIs on one port. Translates; decides nothing."""
