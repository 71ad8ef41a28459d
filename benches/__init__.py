"""What measures speed: `make bench`. Nothing else asserts anything about time, and neither does this."""
