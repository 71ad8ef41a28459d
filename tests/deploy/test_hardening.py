"""What each pod may do, and whom it may reach."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from tests.architecture.test_named_things import WITHOUT_PERMISSION
from tests.deploy.manifests import Manifests, Object
from tests.unit.backplane.test_permissions import routes as routes_with_permissions

APIS = {"command-api", "query-api", "gateway"}


def test_no_pod_may_more_than_it_needs(manifests: Manifests) -> None:
    for component, template in manifests.workloads():
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False, component
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] >= 10000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert "hostNetwork" not in pod
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            for bound in ("requests", "limits"):
                assert container["resources"][bound].keys() >= {"cpu", "memory"}
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in pod["volumes"]} | {"storage"}


def test_every_deployment_can_lose_a_pod_at_a_time(manifests: Manifests) -> None:
    budgets = {each["metadata"]["name"]: each["spec"] for each in manifests.of_kind("PodDisruptionBudget")}
    for component in manifests.services():
        deployment = manifests.named("Deployment", f"parley-{component}")["spec"]
        budget = budgets[f"parley-{component}"]
        assert budget["maxUnavailable"] == 1
        assert budget["selector"] == deployment["selector"]


def test_selectors_find_the_pods_they_are_made_for(manifests: Manifests) -> None:
    pods = {component: template["metadata"]["labels"] for component, template in manifests.workloads()}
    for each in manifests.of_kind("Deployment", "StatefulSet"):
        selector = each["spec"]["selector"]["matchLabels"]
        found = [component for component, labels in pods.items() if selector.items() <= labels.items()]
        assert len(found) == 1, each["metadata"]["name"]
    for service in manifests.of_kind("Service"):
        found = [name for name, labels in pods.items() if service["spec"]["selector"].items() <= labels.items()]
        assert [f"parley-{name}" for name in found] == [service["metadata"]["name"]]


def reaches(manifests: Manifests, component: str) -> set[str]:
    """The policies of egress that apply to the pods of ``component``."""
    labels = next(template for name, template in manifests.workloads() if name == component)["metadata"]["labels"]
    return {each["metadata"]["name"] for each in policies(manifests, "Egress") if _selects(each, labels)}


def policies(manifests: Manifests, direction: str) -> list[Object]:
    return [each for each in manifests.of_kind("NetworkPolicy") if direction in each["spec"]["policyTypes"]]


def _selects(policy: Object, labels: dict[str, str]) -> bool:
    selector = policy["spec"]["podSelector"]
    return bool(
        selector.get("matchLabels", {}).items() <= labels.items()
        and all(labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", []))
    )


def test_who_may_reach_what(manifests: Manifests) -> None:
    servers = {"parley-nothing-else", *(f"parley-to-{each}" for each in ("postgres", "redis", "pulsar"))}
    for component in manifests.services():
        # Webhooks and chat tools; providers and pages that prompts name.
        goes_out = component in ("command-api", "gateway") or component.startswith("worker-")
        more = reaches(manifests, component) - servers - {"parley-to-public"}
        assert more <= {f"parley-{component}-more"}
        assert reaches(manifests, component) - more == servers | ({"parley-to-public"} if goes_out else set())
    assert reaches(manifests, "migrate") == servers - {"parley-to-redis"}
    assert reaches(manifests, "pulsar-setup") == {"parley-nothing-else", "parley-to-pulsar"}
    assert reaches(manifests, "operator") == servers


def test_nothing_is_let_through_that_no_policy_names(manifests: Manifests) -> None:
    denies = manifests.named("NetworkPolicy", "parley-nothing-else")
    for component, template in manifests.workloads():
        assert _selects(denies, template["metadata"]["labels"]), component
    assert denies["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in denies["spec"]
    (egress,) = denies["spec"]["egress"]
    assert {port["port"] for port in egress["ports"]} == {53}


def test_public_means_public(manifests: Manifests) -> None:
    ((egress),) = manifests.named("NetworkPolicy", "parley-to-public")["spec"]["egress"]
    assert egress["ports"] == [{"port": 443, "protocol": "TCP"}]

    def is_let_through(address: str) -> bool:
        wanted = ip_address(address)
        blocks = [each["ipBlock"] for each in egress["to"]]
        return any(
            wanted in ip_network(block["cidr"]) and not any(wanted in ip_network(each) for each in block["except"])
            for block in blocks
        )

    assert is_let_through("93.184.215.14")
    assert is_let_through("2606:2800:21f:cb07:6820:80da:af6b:8b2c")
    inside = ("10.1.2.3", "172.20.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "127.0.0.1", "fd00::1", "::1")
    assert not [address for address in inside if is_let_through(address)]


def test_only_the_apis_are_called_by_clients(manifests: Manifests) -> None:
    for component in manifests.services():
        labels = {"app.kubernetes.io/name": "parley", "app.kubernetes.io/instance": "parley"}
        labels["app.kubernetes.io/component"] = component
        callers = {each["metadata"]["name"] for each in policies(manifests, "Ingress") if _selects(each, labels)}
        clients = {f"parley-from-clients-to-{component}"} if component in APIS else set()
        assert callers == {"parley-nothing-else", "parley-from-monitoring"} | clients


def test_own_servers_are_called_by_who_needs_them(manifests: Manifests) -> None:
    if not manifests.values["local"]["enabled"]:
        pytest.skip("servers elsewhere")
    for server in ("postgres", "redis", "pulsar"):
        first, *others = manifests.named("NetworkPolicy", f"parley-{server}")["spec"]["ingress"]
        (peer,) = first["from"]
        assert peer["podSelector"]["matchLabels"][f"parley/reaches-{server}"] == "true"
        assert len(others) == (1 if server == "pulsar" and manifests.values["keda"]["enabled"] else 0)
        ports = {port["containerPort"] for port in _container(manifests, server)["ports"]}
        assert ports <= {port["port"] for port in first["ports"]}


def _container(manifests: Manifests, component: str) -> Object:
    template = next(template for name, template in manifests.workloads() if name == component)
    container: Object = template["spec"]["containers"][0]
    return container


def test_streams_pass_the_ingress_unbuffered(manifests: Manifests) -> None:
    if not manifests.values["ingress"]["enabled"]:
        pytest.skip("no ingress")
    (ingress,) = manifests.of_kind("Ingress")
    annotations = {name.partition("/")[2]: value for name, value in ingress["metadata"].get("annotations", {}).items()}
    if manifests.values["ingress"]["controller"] == "nginx":
        assert annotations["proxy-buffering"] == annotations["proxy-request-buffering"] == "off"
        assert int(annotations["proxy-read-timeout"]) >= 3600
        # As large as the largest body that a service takes.
        assert int(annotations["proxy-body-size"]) >= 100 * 1024 * 1024
        # What was not sent yet goes to another pod: nginx's own default, which repeats no POST.
        assert "proxy-next-upstream" not in annotations
    else:
        assert annotations == {"router.entrypoints": "websecure", "router.tls": "true"}
    services = {each["metadata"]["name"]: each["spec"] for each in manifests.of_kind("Service")}
    for rule in ingress["spec"]["rules"]:
        (backend,) = {str(path["backend"]): path["backend"]["service"] for path in rule["http"]["paths"]}.values()
        assert backend["name"].removeprefix("parley-") in APIS
        assert backend["port"]["name"] in {port["name"] for port in services[backend["name"]]["ports"]}


def test_the_ingress_lets_every_route_in_but_what_is_the_clusters(manifests: Manifests) -> None:
    if not manifests.values["ingress"]["enabled"]:
        pytest.skip("no ingress")

    def lets_in(path: str, rule: Object) -> bool:
        return path == rule["path"] or (rule["pathType"] == "Prefix" and path.startswith(f"{rule['path']}/"))

    (ingress,) = manifests.of_kind("Ingress")
    asked = {name.split(" ")[1].rstrip("/") or "/" for name, _ in routes_with_permissions()}
    for host in ingress["spec"]["rules"]:
        rules = host["http"]["paths"]
        let_in = {path for path in {*asked, *WITHOUT_PERMISSION} if any(lets_in(path, rule) for rule in rules)}
        assert {*asked, *WITHOUT_PERMISSION} - let_in == {"/metrics", "/readyz"}
        # Nor is there one that no route needs.
        assert [rule["path"] for rule in rules if not any(lets_in(path, rule) for path in let_in)] == []
