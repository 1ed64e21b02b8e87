# Everything a newcomer or a build server needs. Only Python (3.11 or newer) and make are
# expected; the rest goes into .venv, by pip. Nothing is installed twice: a stamp file in
# .venv is older than pyproject.toml only when something has to be done.
#
#   make demo     the sensor story, on a broker that is killed half-way
#   make test     every test
#   make test-clients  programs in Java, Go and JavaScript against a broker, where these are
#   make check    format, lint, types, architecture, spelling, dependencies, house rules
#   make format   let ruff lay out the code
#   make crash    a longer campaign of power losses, damage and kills: KILLS=60 STATES=20000
#   make limits   the long form of the tests of memory, with the promised numbers: 11 minutes
#   make kernels  compile the optional kernels in place: after a change of a .pyx file
#   make wheel    a wheel for this platform, with them inside: dist/
#   make test-wheel  install that wheel into a fresh environment, and publish with it
#   make test-sanitized  the tests of the kernels, on kernels that watch over memory
#   make bench    measure beside every peer that is there; see docs/performance.md
#   make sizes    lines per file, and what the last change added
#   make proto    write the generated protobuf code anew
#   make clean    remove .venv and everything else that can be made again

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PULSAR := src/magnetar/broker/wire/pulsar
CODE := src tests setup.py $(wildcard benchmarks examples)
WIRE := src/magnetar/broker/wire/pulsar
TYPED := src $(wildcard tests benchmarks)

# What an installation is made of, apart from Python modules, which are used where they lie.
BUILT := pyproject.toml setup.py $(shell find src -name '_*.pyx' -o -name '_*.h')

KILLS ?= 60
STATES ?= 20000
CRASHES := tests/storage/test_crash.py tests/storage/test_damage.py \
  tests/storage/test_recovery_from_a_trace.py tests/metadata/test_database_after_power_loss.py \
  tests/conformance/test_kill_loop.py tests/conformance/test_transactions_killed.py

.PHONY: demo test test-clients test-wheel test-sanitized check format crash kernels wheel bench sizes proto clean

demo: $(VENV)/installed
	@$(BIN)/magnetar demo

# Two processes: a test waits for brokers most of its time. A file's tests stay together, because
# they share a broker. Hashes are fixed, because both must find the same tests in the same order.
test: $(VENV)/installed-dev
	@PYTHONHASHSEED=0 $(BIN)/python -m pytest -q -n 2 --dist loadfile $(ARGS)

test-clients: $(VENV)/installed-dev
	TESTS_CLIENTS=1 $(BIN)/python -m pytest -q -rs tests/clients $(ARGS)

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy $(TYPED)
	$(BIN)/lint-imports
	$(BIN)/codespell $(CODE) docs README.md CHANGELOG.md Makefile pyproject.toml .ci
	$(BIN)/deptry src
	$(BIN)/python -m pytest -q tests/tidy

format: $(VENV)/installed-dev
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

crash: $(VENV)/installed-dev
	TESTS_KILLS=$(KILLS) TESTS_CRASH_STATES=$(STATES) $(BIN)/python -m pytest -q $(CRASHES) $(ARGS)

limits: $(VENV)/installed-dev
	TESTS_LIMITS=full $(BIN)/python -m pytest -q -o log_cli=true -o log_cli_level=WARNING tests/conformance/test_limits.py $(ARGS)

kernels: $(VENV)/installed-dev
	@MAGNETAR_KERNELS=required $(BIN)/python setup.py --quiet build_ext --inplace

# Of a source distribution, so that this is tried as well.
wheel: $(VENV)/installed-dev
	@rm -rf build dist
	@$(BIN)/python setup.py --quiet sdist
	@MAGNETAR_KERNELS=required $(PIP) wheel --no-deps --wheel-dir dist dist/magnetar-*.tar.gz
	@ls dist

test-wheel: wheel
	@$(BIN)/python .ci/try_wheel.py dist/magnetar-*.whl

test-sanitized: $(VENV)/installed-dev
	@.ci/sanitized $(BIN)/python

bench: $(VENV)/installed-dev
	@$(PIP) install -e '.[bench]'
	$(BIN)/python -m benchmarks $(ARGS)

sizes: $(VENV)/installed
	@$(BIN)/python tests/tidy/sizes.py

proto: $(VENV)/installed-dev
	$(PIP) install -e '.[proto]'
	$(BIN)/python -m grpc_tools.protoc -I $(PULSAR) --python_out=$(PULSAR)/generated \
	  --pyi_out=$(PULSAR)/generated $(PULSAR)/PulsarApi.proto

clean:
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find src \( -name '_*.c' -o -name '_*.so' \) -delete
	find src tests benchmarks \( -name __pycache__ -o -name '*.egg-info' \) -prune -exec rm -rf {} + 2>/dev/null || true

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Magnetar needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.13 ...")'
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# `touch` comes last: a broken installation is tried again.
$(VENV)/installed: $(BUILT) | $(VENV)/bin/python
	@echo "installing what Magnetar needs"
	@$(PIP) install -e .
	@touch $@

$(VENV)/installed-dev: $(BUILT) | $(VENV)/bin/python
	@echo "installing what Magnetar and its checks need"
	@$(PIP) install -e '.[dev]'
	@touch $(VENV)/installed $@
