"""What of the documentation's site is made from the code, when `mkdocs build` asks for it."""
