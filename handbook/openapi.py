"""The gateway's routes with every door open, and the OpenAPI document that it serves of them at `/openapi.json`."""

from __future__ import annotations

from typing import Any, cast

from fastapi import FastAPI

from backplane.security.authenticator import Authenticator
from backplane.settings import Settings
from backplane.telemetry.readiness import Readiness
from gateway.main import application


def gateway() -> FastAPI:
    """It is made without a server: nothing is asked, and no environment and no file is read."""
    nobody = cast(Authenticator, None)  # no request is answered
    return application(Settings.model_construct(), nobody, Readiness())


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    return gateway().openapi()
