"""The manifests against Kubernetes' own schemas, and against one another."""

import re
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.compose.composed import COMPOSE, load
from tests.compose.known import known_names
from tests.kubernetes.kustomized import (
    MANIFESTS,
    OVERLAYS,
    Object,
    identity,
    kustomizations,
    named_files,
    overlay,
)
from tests.kubernetes.workloads import containers, of_kind, pods, ports, selects

# The oldest and the newest version that these manifests are for.
VERSIONS = ("1.30", "1.37")
# Values for a chart, and no object of ours.
NOT_APPLIED = MANIFESTS / "prometheus-adapter.yaml"

in_every_overlay = pytest.mark.parametrize("name", OVERLAYS)


@pytest.mark.parametrize("version", VERSIONS)
@in_every_overlay
def test_every_object_is_one_that_the_api_server_takes(name: str, version: str):
    for thing in overlay(name):
        kubernetes_validate.validate(thing, version, strict=True)


def test_a_field_that_does_not_exist_is_refused():
    thing = overlay("gpu")[0] | {"metadata": {"name": "msr", "labls": {}}}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(thing, VERSIONS[-1], strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@in_every_overlay
def test_kubectl_makes_the_same_of_an_overlay(name: str):
    command = ["kubectl", "kustomize", str(MANIFESTS / "overlays" / name)]
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    theirs = {identity(thing): thing for thing in yaml.safe_load_all(made)}
    assert theirs == {identity(thing): thing for thing in overlay(name)}


def test_every_file_is_named_by_a_kustomization_and_every_named_one_is_there():
    named = {
        (each.parent / name).resolve() for each in kustomizations() for name in named_files(each)
    }
    files = {path.resolve() for path in MANIFESTS.rglob("*.yaml")}
    folders = {path for path in named if path.is_dir()}

    assert all((folder / "kustomization.yaml").is_file() for folder in folders)
    assert named - folders == files - set(kustomizations()) - {NOT_APPLIED}


@in_every_overlay
def test_no_container_is_root_gains_rights_or_writes_its_own_files(name: str):
    for template in pods(overlay(name)).values():
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in containers(template):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@in_every_overlay
def test_every_container_says_what_it_needs_and_what_it_may_take(name: str):
    for template in pods(overlay(name)).values():
        for container in containers(template):
            for bound in ("requests", "limits"):
                assert container["resources"][bound].keys() >= {"cpu", "memory"}


@in_every_overlay
def test_every_server_is_probed_at_a_port_it_has(name: str):
    for workload in of_kind(overlay(name), "Deployment", "StatefulSet"):
        template = workload["spec"]["template"]
        (server,) = template["spec"]["containers"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = server[probe].get("httpGet")
            assert "exec" in server[probe] or asked["port"] in ports(template)


def test_images_are_those_of_docker_compose():
    composed = {each["image"] for each in load(COMPOSE)["services"].values()}

    for name in OVERLAYS:
        for template in pods(overlay(name)).values():
            assert {container["image"] for container in containers(template)} <= composed


@in_every_overlay
def test_workloads_services_and_budgets_select_the_pods_they_mean(name: str):
    objects = overlay(name)
    templates = pods(objects)

    selectors: list[tuple[Object, Any]] = [
        (each, each["spec"]["selector"])
        for each in of_kind(objects, "Deployment", "StatefulSet", "Service", "PodDisruptionBudget")
    ]
    for thing, selector in selectors:
        meant = [pod for pod, template in templates.items() if selects(selector, template)]
        assert meant == [thing["metadata"]["name"]], identity(thing)


@in_every_overlay
def test_services_lead_to_ports_that_their_pods_have(name: str):
    objects = overlay(name)

    for service in of_kind(objects, "Service"):
        have = ports(pods(objects)[service["metadata"]["name"]])
        for port in service["spec"]["ports"]:
            assert have[port["targetPort"]] == port["port"]


@in_every_overlay
def test_what_scales_and_what_is_mounted_is_there(name: str):
    objects = overlay(name)
    there = {identity(each) for each in objects}

    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) in there
        (scaled,) = [each for each in objects if identity(each) == (target["kind"], target["name"])]
        assert "replicas" not in scaled["spec"], "two would set it"
    for template in pods(objects).values():
        for volume in template["spec"]["volumes"]:
            if claim := volume.get("persistentVolumeClaim"):
                assert ("PersistentVolumeClaim", claim["claimName"]) in there
            assert volume.get("secret", {"secretName": "redis"})["secretName"] == "redis"


@in_every_overlay
def test_every_setting_is_one_that_our_programs_know_and_none_is_a_secret(name: str):
    (settings,) = of_kind(overlay(name), "ConfigMap")

    ours = {name for name in settings["data"] if name.startswith(("MSR_", "REDIS_"))}
    assert ours - known_names() == set()
    assert not [value for value in settings["data"].values() if re.search(r"://[^/]*@", value)]
    assert not of_kind(overlay(name), "Secret")


def test_the_model_servers_run_what_docker_compose_runs_and_the_api_knows_each():
    objects = overlay("gpu")
    (server,) = of_kind(objects, "StatefulSet")
    (settings,) = of_kind(objects, "ConfigMap")
    (container,) = server["spec"]["template"]["spec"]["containers"]
    composed = load(COMPOSE)["services"]["vllm"]

    assert (container["command"], container["args"]) == (
        composed["entrypoint"],
        composed["command"],
    )
    given = {each["name"]: each["value"] for each in container["env"]}
    assert given == {name: str(value) for name, value in composed["environment"].items()}
    replicas = range(server["spec"]["replicas"])
    urls = [f"http://vllm-{number}.vllm:8001" for number in replicas]
    assert settings["data"]["MSR_VLLM_URLS"] == ",".join(urls)
