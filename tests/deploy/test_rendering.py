"""What Helm makes of the chart."""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from backplane.adapters.embedded.pulsar import VERSION, EmbeddedPulsar
from tests.deploy.cluster import Secrets, cluster
from tests.deploy.manifests import COMMITTED, Object, committed, rendered, template

pytestmark = pytest.mark.helm


def test_committed_manifests_are_what_the_chart_makes() -> None:
    fresh = {(each["kind"], each["metadata"]["name"]): each for each in rendered("kubectl").objects}
    kept = {(each["kind"], each["metadata"]["name"]): each for each in committed().objects}
    assert kept == fresh, "run `make k8s`"
    assert all(file.suffix == ".yaml" for file in COMMITTED.iterdir() if file.name != "chart.sha256")


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("secrets.existing=", "secrets.existing is not set"),
        ("settings.security.master_key=0000", "master_key"),
        ("settings.postgres.url=postgresql://somebody@db/parley", "url"),
        ("settings.bus.pulsar.token=abc", "token"),
        ("settings.bus.pulsar.admin_url=", "admin_url is not"),
        ("pools.cloud.settings.keys={sk-abc}", "keys"),
        ("pools.Cloud.settings.backend=openai", "Cloud"),
        ("gateway.replica=3", "replica"),
        ("ingress.controller=haproxy", "controller"),
        ("keda.enabled=false,pools.cloud.scaling.min=0", "worker-cloud would never run"),
    ],
)
def test_values_that_cannot_be_right_are_refused(setting: str, told: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        template("kubectl", "--set", setting)
    assert told in failed.value.stderr


def test_hooks_come_before_the_release_and_set_pulsar_up_first() -> None:
    jobs = {each["metadata"]["name"]: each["metadata"]["annotations"] for each in rendered("minimal").of_kind("Job")}
    assert {annotations["helm.sh/hook"] for annotations in jobs.values()} == {"pre-install,pre-upgrade"}
    weight = {name: int(annotations["helm.sh/hook-weight"]) for name, annotations in jobs.items()}
    assert weight["parley-pulsar-setup"] < weight["parley-migrate"]


def test_without_hooks_what_differs_is_a_job_of_its_own() -> None:
    """Nobody can change a Job's template, and every setting stands in it."""

    def jobs(setting: str = "") -> dict[str, Object]:
        return {each["metadata"]["name"]: each["spec"] for each in rendered("kubectl", "--set", setting).of_kind("Job")}

    more = (
        "settings.backend=openai",
        "settings.models={gpt-4o}",
        "scaling.min=1",
        "scaling.max=1",
        "resources.limits.cpu=1",
    )

    made = [
        jobs(),
        jobs(f"image.tag={'a' * 128}"),
        jobs(",".join(f"pools.more.{each}" for each in more)),
        jobs("settings.log_level=DEBUG"),
    ]
    names = [name for each in made for name in each]
    assert len(set(names)) == len(names) == 2 * len(made)
    assert all(re.fullmatch(r"parley-(migrate|pulsar-setup)-[0-9a-f]{8}", name) for name in names)
    assert jobs("gateway.replicas=5") == made[0]
    # Our own servers come with the release, so that their jobs cannot come before it.
    assert all("annotations" not in each["metadata"] for each in rendered("local").of_kind("Job"))


def test_own_servers_get_passwords_that_nobody_chose() -> None:
    first, second = (rendered("local").named("Secret", "parley-secrets")["stringData"] for _ in range(2))
    assert first.keys() == second.keys()
    assert not [key for key in first if first[key] == second[key]]
    for key in ("key-pepper", "master-key", "signing-key"):
        assert len(bytes.fromhex(first[key])) == 32
    assert first["password-worker"] in first["postgres-worker-url"]
    assert "postgresql://parley_worker:" in first["postgres-worker-url"]
    assert len(first["password-owner"]) >= 32
    assert base64.b64encode(first["password-redis"].encode()).decode() not in template("local")


def test_an_upgrade_keeps_the_passwords_that_are_there() -> None:
    """And makes what a former release did not have yet."""

    def secret_of(secrets: Secrets) -> dict[str, str]:
        with cluster(secrets) as address:
            made = rendered("local", "--dry-run=server", "--kube-apiserver", address)
        found: dict[str, str] = made.named("Secret", "parley-secrets")["stringData"]
        return found

    first = secret_of({"another": {"password-owner": "another's"}})
    assert secret_of({"parley-secrets": first}) == first
    former = {key: value for key, value in first.items() if key != "signing-key"}
    again = secret_of({"parley-secrets": former})
    assert {key: value for key, value in again.items() if key != "signing-key"} == former
    assert len(bytes.fromhex(again["signing-key"])) == 32


def test_own_pulsar_is_set_as_the_one_that_is_tested() -> None:
    def settings(broker: Iterable[str]) -> dict[str, str]:
        found = (re.fullmatch(r"PULSAR_PREFIX_(\w+)=(.*)", each) for each in broker)
        return {each[1]: each[2] for each in found if each}

    tested = settings(EmbeddedPulsar(Path())._in_container("docker"))
    (container,) = rendered("local").named("StatefulSet", "parley-pulsar")["spec"]["template"]["spec"]["containers"]
    ours = settings(f"{each['name']}={each['value']}" for each in container["env"])
    assert container["image"] == f"apachepulsar/pulsar:{VERSION}"
    assert ours.items() <= tested.items()
    # Named by its Service, and with what the image's own file says already.
    assert {name for name in tested.keys() - ours.keys() if not name.startswith("managedLedgerDefault")} == {
        *("clusterName", "brokerServicePort", "webServicePort", "bindAddress", "advertisedAddress"),
    }
    assert "--advertised-address parley-pulsar" in container["command"][-1]


def test_secrets_that_are_named_are_those_the_chart_makes() -> None:
    manifests = rendered("local")
    made = manifests.named("Secret", "parley-secrets")["stringData"].keys()
    for container in manifests.parley_containers().values():
        for each in container["env"]:
            if "valueFrom" in each:
                reference = each["valueFrom"]["secretKeyRef"]
                assert reference["name"] == "parley-secrets"
                assert reference["key"] in made


def test_a_bus_in_postgres_needs_no_pulsar() -> None:
    arguments = ("--set", "settings.bus.pulsar.url=,settings.bus.pulsar.admin_url=,keda.enabled=false")
    manifests = rendered("kubectl", *arguments)
    (job,) = manifests.of_kind("Job")
    assert job["metadata"]["labels"]["app.kubernetes.io/component"] == "migrate"
    with pytest.raises(subprocess.CalledProcessError) as failed:
        template("kubectl", "--set", "settings.bus.pulsar.url=")
    assert "keda.enabled needs Pulsar" in failed.value.stderr
