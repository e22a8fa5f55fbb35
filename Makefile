# Everything here works on a machine that has Python 3.11 or 3.12, git and make; .venv is made when it is absent.
VENV ?= .venv
RUN = "$(VENV)/bin/
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

.PHONY: help venv demo up test check faults gpu-check bench containers compose-up

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

venv:
	@sh .ci/venv "$(VENV)"

demo: venv ## train the tutorial classifier through the whole system, on this machine, and clean up
	@$(RUN)python" -m stoker.stack.demo

up: venv ## start everything here and keep it up until Ctrl-C
	@$(RUN)stoker" up

test: venv ## all tests, on real services
	@$(RUN)python" -m pytest -n 2 --dist loadfile

check: venv ## style, types, layers, Dockerfile, compose file; uses no network
	@echo "ruff";               $(RUN)ruff" check --quiet .
	@echo "ruff format";        $(RUN)ruff" format --quiet --check .
	@echo "mypy";               $(RUN)mypy" --no-error-summary
	@echo "import-linter";      $(RUN)lint-imports" >"$(VENV)/layers.log" || { cat "$(VENV)/layers.log"; exit 1; }
	@echo "hadolint";           $(RUN)hadolint" --config docker/hadolint.yaml docker/Dockerfile
	@echo "compose files";      $(RUN)check-jsonschema" --quiet --builtin-schema vendor.compose-spec docker-compose.yml docker/compose.*.yml
	@echo "all checks passed"

faults: venv ## kill, freeze and damage every part, and check that nothing was lost; the seed is printed (ARGS=--long)
	@$(RUN)python" -m tests.faults $(ARGS)

gpu-check: venv ## for a machine with NVIDIA GPUs: driver, devices, training on each, what is shared; says what to do
	@$(RUN)python" -m stoker.stack.gpu_check

bench: venv ## the numbers of the README, measured on this machine; ONLY=start_latency for one table
	@$(RUN)python" -m bench $(ONLY)

containers: venv ## the team's installation in real containers, on an engine brought along; as root on Debian (ARGS=--only NAME)
	@$(RUN)python" -m tests.containers $(ARGS)

compose-up: ## a team's installation on this host: secrets, images, services; prints addresses and the first token
	@sh docker/up.sh $(ARGS)
