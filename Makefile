# make demo [BUCKET=s3]   a tree, mounted at ./.demo/mnt        make test    everything CI runs
# make demo-stop          unmount it and stop its server        make lint    style, types, imports
# make bench              the figures                           make docs    generated pages
# make nightly            what takes long: crashes by the hundred   make audit   advisories
VENV ?= .venv
BUCKET ?= local
WORKERS ?= 2
PYTEST ?=
BIN = $(VENV)/bin
SETUP = VENV=$(VENV) scripts/setup.sh
TEST_PROGRAMS = fusermount3:fuse3 rsync:rsync git:git sqlite3:sqlite3 setfattr:attr systemd-analyze:systemd redis-server:redis-server

.PHONY: demo demo-stop dev test nightly lint audit docs bench clean

demo:
	@$(SETUP) demo $(if $(filter 0,$(shell id -u)),,fusermount3:fuse3)
	@$(BIN)/python -m fsdriver.cli.demo start --bucket $(BUCKET)

demo-stop:
	@$(BIN)/python -m fsdriver.cli.demo stop

dev:
	@$(SETUP) dev $(TEST_PROGRAMS)

lint: dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -n $(WORKERS) --dist load --cov --cov-report=term $(PYTEST)

nightly: dev
	$(BIN)/pytest -m nightly --junit-xml=nightly.xml $(PYTEST)

audit: dev
	$(BIN)/python -m venv .audit && .audit/bin/pip install -q pip-audit
	$(BIN)/python -m pip freeze --exclude-editable > .audit/requirements.txt
	.audit/bin/pip-audit --disable-pip --no-deps -r .audit/requirements.txt

docs: dev
	$(BIN)/python scripts/generate_docs.py

bench: dev
	$(BIN)/python -m benchmarks

clean:
	rm -rf .audit build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage* htmlcov
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
