"""The doors of the earlier systems, as their clients know them."""
