.DEFAULT_GOAL := help
.PHONY: dev test check fix docs pictures sbom benchmark faults faults-hosts upgrade drill test-servers help

VENV := .venv
UV := $(VENV)/bin/uv
# Most tests wait most of the time: four at once are more than twice as quick, also on two cores.
PYTEST := $(VENV)/bin/python -m pytest -n 4 --dist loadfile
# The environment is made anew when the lock or the project changes.
READY := $(VENV)/.ready

$(UV):
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed as python3"; exit 1; }
	@echo "Making $(VENV) …" >&2
	@python3 -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9

# Bytecode is compiled also where PYTHONDONTWRITEBYTECODE is set: else each start would compile it.
$(READY): $(UV) pyproject.toml uv.lock
	@echo "Installing into $(VENV) …" >&2
	@UV_PYTHON_DOWNLOADS=never $(UV) sync --locked --all-extras --compile-bytecode --quiet
	@$(VENV)/bin/python -m compileall -q src tests
	@touch $(READY)

dev: $(READY)  ## Run everything here, with PostgreSQL and Valkey from wheels: Ctrl-C stops it
	@exec $(VENV)/bin/kratos-sync dev

test: $(READY)  ## Run all tests
	@$(PYTEST)

check: $(READY)  ## Format, lint, types, contracts and all tests: what CI runs
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports
	@$(PYTEST)

fix: $(READY)  ## Mend what the formatter and the linter can
	@$(VENV)/bin/ruff format
	@$(VENV)/bin/ruff check --fix

docs: $(READY)  ## Build the site of the documentation into .data/docs
	@$(VENV)/bin/python -m sphinx -q -W --keep-going -b html docs .data/docs
	@echo ".data/docs/index.html"

pictures: $(READY)  ## Take the pictures of docs/console, with recorded lives and Chromium
	@exec $(VENV)/bin/python -m tests.end_to_end.console.pictures docs/console

sbom: $(READY)  ## List what the image installs, as CycloneDX, in .data/sbom.cdx.json
	@mkdir -p .data
	@$(UV) export --locked --no-dev --extra console --extra otel --extra sentry --preview-features sbom-export --quiet --format cyclonedx1.5 --output-file .data/sbom.cdx.json
	@echo ".data/sbom.cdx.json"

# What a server may do otherwise than those of the wheels.
CORE := tests/suites/test_ledger.py tests/odd_settings tests/end_to_end/test_any_identity.py \
	tests/end_to_end/test_replays.py tests/end_to_end/test_refetch.py

test-servers: $(READY)  ## Run tests on installed servers and a pooler, and break broker clusters (tests/servers/install)
	@$(PYTEST) --server postgresql --server pgbouncer --server redis $(CORE)
	@$(PYTEST) --server pgbouncer tests/end_to_end
	@$(VENV)/bin/python -m pytest --server clusters tests/infrastructure/bus/test_tls.py tests/end_to_end/test_broker_clusters.py

faults: $(READY)  ## Break whatever runs, and count what is lost (SIZE=small, SEED=2, POOLER=1, BROKER=memory or rabbitmq)
	@exec $(VENV)/bin/python -m tests.faults --size $(or $(SIZE),full) --seed $(or $(SEED),1) --broker $(or $(BROKER),valkey) $(if $(POOLER),--pooler)

faults-hosts: $(READY)  ## Do the same to several hosts and the network between them (SEED=2; as root)
	@exec $(VENV)/bin/python -m tests.hosts --seed $(or $(SEED),1)

upgrade: $(READY)  ## Roll the release before the newest revision to this one and back, under load, with a big table
	@UPGRADE_SIZE=full $(VENV)/bin/python -m pytest -q -s --basetemp=.data/upgrade tests/end_to_end/test_upgrade.py

drill: $(READY)  ## Restore a backup to an older minute, and reconcile it with Kratos' stand-in
	@DRILL_PEOPLE=2000 $(VENV)/bin/python -m pytest -q -s --basetemp=.data/drill tests/deploy/test_restore_drill.py

# What we are compared with is installed apart from what is tested.
BENCHMARK := .venv-benchmark

benchmark: $(UV)  ## Measure, and write docs/performance.md (SIZE=small only looks)
	@UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=$(BENCHMARK) $(UV) sync --locked --all-extras --group benchmark --compile-bytecode --quiet
	@$(BENCHMARK)/bin/python -m compileall -q src benchmarks
	@exec $(BENCHMARK)/bin/python -m benchmarks --size $(or $(SIZE),full)

help:  ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 15
