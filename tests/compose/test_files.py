"""What docker-compose.yml promises, read off the files; `make test-docker` really runs them."""

import re
import tomllib
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.compose.composed import COMPOSE, ENV_EXAMPLE, ON_CPU, ROOT, handed_on, load, variables
from tests.compose.known import known_names
from tests.operations.monitoring import MONITORING

FILE = load(COMPOSE)
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
ONE_SHOT = {"seed", "batch"}
OURS = {"api", "worker", "batch"}


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_is_root_gains_rights_or_writes_its_own_files(name: str):
    service = SERVICES[name]

    assert str(service["user"]).split(":")[0] not in ("", "0", "root")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "devices", "pid", "ipc", "network_mode"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_bounded_and_its_image_is_a_version(name: str):
    service = SERVICES[name]

    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+(-\w+)?", service["image"])


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONE_SHOT))
def test_every_server_has_a_health_check_time_to_start_and_time_to_end(name: str):
    service = SERVICES[name]

    assert service["healthcheck"].keys() >= {"test", "interval", "timeout", "start_period"}
    assert service["restart"] == "unless-stopped"
    assert service["stop_grace_period"]


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_needs_is_waited_for_until_it_is_healthy(name: str):
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        is_one_shot = needed in ONE_SHOT
        assert (
            how["condition"] == f"service_{'completed_successfully' if is_one_shot else 'healthy'}"
        )


def test_only_the_api_and_grafana_are_published_and_only_to_this_machine():
    published = {name: each["ports"] for name, each in SERVICES.items() if "ports" in each}

    assert published == {"api": ["127.0.0.1:8000:8000"], "grafana": ["127.0.0.1:3000:3000"]}


def test_redis_and_the_model_are_on_networks_that_lead_nowhere():
    outside = {name for name, how in FILE["networks"].items() if not (how or {}).get("internal")}

    assert outside == {"outside"}
    for name in ("redis", "vllm", "worker", "prometheus"):
        assert not outside & set(SERVICES[name]["networks"]), name
    reach_redis = {name for name, each in SERVICES.items() if "state" in each["networks"]}
    assert reach_redis == OURS | {"redis"}


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_go_by_file_and_nothing_like_one_stands_in_an_environment(name: str):
    service = SERVICES[name]

    for variable, value in service.get("environment", {}).items():
        if re.search("PASSWORD|TOKEN|SECRET|KEY$|REDIS_URL", variable):
            assert variable.endswith("_FILE")
            assert value.removeprefix("/run/secrets/") in service["secrets"]
    assert set(service.get("secrets", ())) <= FILE["secrets"].keys()
    assert all(how.keys() == {"file"} for how in FILE["secrets"].values())


@pytest.mark.parametrize("file", [COMPOSE, ON_CPU], ids=lambda file: file.name)
def test_every_variable_that_our_programs_get_is_one_they_know(file):
    services = load(file)["services"]
    given = {name for each in OURS for name in services[each]["environment"]}

    assert {name for name in given if name.startswith(("MSR_", "REDIS_"))} - known_names() == set()


def test_the_example_explains_every_variable_and_shows_its_default():
    lines = ENV_EXAMPLE.read_text().splitlines()
    shown = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]", line))
    unset = {found[1] for line in lines if (found := re.match(r"# ([A-Z_]+)=", line))}

    assert {name: {default} for name, default in shown.items()} == variables(COMPOSE, ON_CPU)
    assert unset == handed_on(COMPOSE, ON_CPU)


def test_on_a_cpu_nothing_changes_but_who_computes():
    changed = load(ON_CPU)["services"]

    assert changed.pop("vllm") == {"profiles": ["gpu"]}
    assert changed.keys() == OURS
    for name, service in changed.items():
        assert service.keys() == {"environment", "depends_on"}
        needed = {n: how for n, how in SERVICES[name]["depends_on"].items() if n != "vllm"}
        assert service["depends_on"] == needed


def test_prometheus_scrapes_and_grafana_asks_services_that_are_there():
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    targets = {
        target
        for job in config["scrape_configs"]
        for each in job["static_configs"]
        for target in each["targets"]
    }
    (source,) = (MONITORING / "grafana/provisioning/datasources").iterdir()
    (datasource,) = yaml.safe_load(source.read_text())["datasources"]

    api, worker = (SERVICES[name]["environment"] for name in ("api", "worker"))
    ours = {f"api:{api['MSR_PORT']}", f"worker:{worker['MSR_WORKER_PORT']}"}
    assert targets == ours | {urlsplit(api["MSR_VLLM_URLS"]).netloc}
    assert urlsplit(datasource["url"]).hostname in SERVICES
    metrics = {name for name, each in SERVICES.items() if "metrics" in each["networks"]}
    assert metrics == {"api", "worker", "prometheus", "grafana"}


def test_vllm_and_our_image_have_the_versions_of_this_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (vllm,) = [each for each in project["optional-dependencies"]["vllm"] if "==" in each]

    assert SERVICES["vllm"]["image"].partition(":v")[2] == vllm.removeprefix("vllm==")
    for name in OURS | {"seed"}:
        assert SERVICES[name]["image"] == f"msr:{project['version']}"


def test_the_image_is_built_on_what_the_example_names_and_runs_as_the_user_of_the_services():
    lines = (ROOT / "docker" / "Dockerfile").read_text().splitlines()
    (base,) = [line.partition("=")[2] for line in lines if line.startswith("ARG PYTHON_IMAGE")]
    stages = [line.split()[1] for line in lines if line.startswith("FROM ")]
    (user,) = [line.split()[1] for line in lines if line.startswith("USER ")]

    assert variables(COMPOSE)["PYTHON_IMAGE"] == {base}
    assert stages == ["${PYTHON_IMAGE}", "base", "build", "base"]
    assert {SERVICES[name]["user"] for name in OURS | {"seed", "vllm"}} == {user}


def test_every_file_that_is_mounted_or_built_from_is_here():
    mounted = [
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", ())
        if volume.startswith(".")
    ]

    assert mounted
    for path in [*mounted, SERVICES["api"]["build"]["dockerfile"]]:
        assert (ROOT / path).exists(), path
