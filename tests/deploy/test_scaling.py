"""The custom resources, whose schemas no validator has: what KEDA and the Prometheus operator read."""

from __future__ import annotations

import pytest

from backplane.adapters.pulsar_bus.address import PulsarAddress
from backplane.settings import PoolSettings
from event_schemas import topics
from tests.deploy.manifests import Manifests, Object


def pulsar_of(values: Object) -> PulsarAddress:
    given = values["settings"]["bus"]["pulsar"]
    return PulsarAddress(
        given.get("url", "pulsar://parley-pulsar:6650"),
        given.get("admin_url", "http://parley-pulsar:8080").rstrip("/"),
        given.get("tenant", "parley"),
        given.get("namespace", "main"),
    )


def scaled(manifests: Manifests) -> dict[str, Object]:
    if not manifests.values["keda"]["enabled"]:
        pytest.skip("not scaled by KEDA")
    return {each["spec"]["scaleTargetRef"]["name"]: each for each in manifests.of_kind("ScaledObject")}


def test_workers_scale_by_the_backlog_of_their_pool(manifests: Manifests) -> None:
    pools, pulsar = manifests.values["pools"], pulsar_of(manifests.values)
    for name, pool in pools.items():
        each = scaled(manifests)[f"parley-worker-{name}"]
        assert each["apiVersion"] == "keda.sh/v1alpha1"
        spec = each["spec"]
        assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (pool["scaling"]["min"], pool["scaling"]["max"])
        # KEDA's fallback is a fixed number: it would take workers away while Pulsar does not answer.
        assert "fallback" not in spec
        (trigger,) = spec["triggers"]
        slots = PoolSettings(**pool["settings"]).slots
        assert trigger["type"] == "pulsar"
        assert trigger["metadata"] == {
            "adminURL": pulsar.admin_url,
            "topic": pulsar.topic(topics.commands(name)),
            "isPartitionedTopic": "true",
            "subscription": topics.WORKERS,
            "msgBacklogThreshold": str(pool["scaling"].get("backlog", slots)),
            "activationMsgBacklogThreshold": "0",
            **({"authModes": "bearer"} if manifests.values["secrets"]["pulsarToken"] else {}),
        }


def test_projections_scale_by_everything_they_read(manifests: Manifests) -> None:
    spec = scaled(manifests)["parley-projections"]["spec"]
    pulsar = pulsar_of(manifests.values)
    read = {trigger["metadata"]["topic"] for trigger in spec["triggers"]}
    assert read == {pulsar.topic(topic) for topic in topics.all_topics(list(manifests.values["pools"]))}
    assert {trigger["metadata"]["subscription"] for trigger in spec["triggers"]} == {topics.PROJECTIONS}
    assert spec["minReplicaCount"] >= 1, "what nobody projects, nobody sees"


def test_what_is_scaled_has_no_replicas_of_its_own(manifests: Manifests) -> None:
    targets = set(scaled(manifests))
    assert targets == {"parley-projections", *(f"parley-worker-{pool}" for pool in manifests.values["pools"])}
    for each in manifests.of_kind("Deployment"):
        assert ("replicas" in each["spec"]) == (each["metadata"]["name"] not in targets)
    assert not list(manifests.of_kind("HorizontalPodAutoscaler"))


def test_keda_knows_itself_to_pulsar(manifests: Manifests) -> None:
    authentications = {each["metadata"]["name"]: each for each in manifests.of_kind("TriggerAuthentication")}
    for each in scaled(manifests).values():
        for trigger in each["spec"]["triggers"]:
            assert ("authenticationRef" in trigger) == manifests.values["secrets"]["pulsarToken"]
            if reference := trigger.get("authenticationRef"):
                (target,) = authentications[reference["name"]]["spec"]["secretTargetRef"]
                existing = manifests.values["secrets"]["existing"]
                assert target == {"parameter": "bearerToken", "name": existing, "key": "pulsar-token"}


def test_pools_on_gpus_may_be_empty_and_never_need_one_more(manifests: Manifests) -> None:
    pools = {name: pool for name, pool in manifests.values["pools"].items() if pool.get("gpus")}
    if not pools:
        pytest.skip("no pool on GPUs")
    for name, pool in pools.items():
        assert scaled(manifests)[f"parley-worker-{name}"]["spec"]["minReplicaCount"] == 0
        spec = manifests.named("Deployment", f"parley-worker-{name}")["spec"]
        assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
        container = spec["template"]["spec"]["containers"][0]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == pool["gpus"]
        assert container["image"].endswith("-cuda")


def test_prometheus_finds_every_service(manifests: Manifests) -> None:
    if not manifests.values["serviceMonitor"]["enabled"]:
        pytest.skip("no service monitor")
    (monitor,) = manifests.of_kind("ServiceMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["path"] == "/metrics"
    selector = monitor["spec"]["selector"]
    (expression,) = selector["matchExpressions"]
    found = set()
    for service in manifests.of_kind("Service"):
        labels = service["metadata"]["labels"]
        component = labels["app.kubernetes.io/component"]
        if component in expression["values"] and selector["matchLabels"].items() <= labels.items():
            assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
            assert labels[monitor["spec"]["jobLabel"]] == "parley"
            found.add(component)
    assert found == set(manifests.services())
    assert manifests.values["serviceMonitor"]["labels"].items() <= monitor["metadata"]["labels"].items()
