# Two commands for a fresh machine: `make demo` and `make test`. Each does all its own set-up, and so does `make docs`.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-sqlalchemy-20 setup lint docs bench
demo: $(READY)
	$(BIN)/pgneural demo

# a core for each process: threads that wait for each other take time from the other one. Long files go first
# (tests/conftest.py), so that both processes end together
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# all that mapped classes and migrations have, on SQLAlchemy 2.0; `make test` runs there what may differ
test-sqlalchemy-20: $(READY)
	PYTHONPATH=.venv/sqlalchemy-2.0 OMP_NUM_THREADS=1 $(BIN)/pytest \
	  tests/integration/test_orm*.py tests/acceptance/test_application.py tests/migration/test_alembic_*.py

setup: $(READY)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# needs no server; a warning is an error. The tests run what its pages show
docs: $(READY)
	$(BIN)/sphinx-build -W --keep-going --quiet docs docs/_build
	@echo open docs/_build/index.html

bench: $(READY)
	$(BIN)/python -m bench --help

# torch goes first and pinned: an open range would bring several GB of CUDA packages
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all,dev,docs]'
	$(BIN)/pip install --quiet --no-deps --target .venv/sqlalchemy-2.0 sqlalchemy==2.0.58
	touch $(READY)
