from __future__ import annotations

import pytest

from tests.deploy.manifests import CHART, Manifests, committed, rendered

VALUES = sorted(file.stem for file in (CHART / "ci").glob("*.yaml"))


@pytest.fixture(scope="session", params=["committed", *(pytest.param(each, marks=pytest.mark.helm) for each in VALUES)])
def manifests(request: pytest.FixtureRequest) -> Manifests:
    return committed() if request.param == "committed" else rendered(request.param)
