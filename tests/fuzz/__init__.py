"""`python -m tests.fuzz`: requests that the OpenAPI document allows, and some that it does not, on a running Parley."""
