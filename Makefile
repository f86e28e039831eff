# Two commands do everything on a machine with Python 3.11 or later: `make serve` and `make test`.
PYTHON ?= python3
# Each Python that is named has an environment of its own, so `make test PYTHON=python3.12` disturbs no other.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(VERSION))
WORKERS ?= auto
# Each worker begins with tests that are neighbours and so share their sites; who is done first takes from the others.
PYTEST = env -u PYTHONDONTWRITEBYTECODE $(VENV)/bin/python -m pytest
PARALLEL = -n $(WORKERS) --dist worksteal

.PHONY: serve test lint bytecode simulate differential check-python clean

serve: $(VENV)/ready
	cd examples/02_django && $(abspath $(VENV))/bin/python manage.py prepare
	cd examples/02_django && exec $(abspath $(VENV))/bin/gatekeep serve mysite.wsgi:application $(FLAGS)

test: lint bytecode
	$(PYTEST) $(PARALLEL) $(TESTS)

# A third of what it costs to start a process, of which the tests start thousands, is to compile what is compiled already.
bytecode: $(VENV)/ready
	$(VENV)/bin/python -m compileall -q src tests

# A long run of the simulated host: make simulate SEEDS=5000
SEEDS ?= 1000
simulate: bytecode
	GATEKEEP_SEEDS=$(SEEDS) $(PYTEST) $(PARALLEL) --timeout 0 tests/simulation

# A long run of mutated requests on both codecs and h11 alone.
differential: $(VENV)/ready
	GATEKEEP_DIFFERENTIAL=100000 $(VENV)/bin/python -m pytest --timeout 0 tests/transport/test_codec_differential.py

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

check-python:
	@test -n "$(VERSION)" || { echo "no Python was found as '$(PYTHON)': name one with make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; $(PYTHON) is $(VERSION). Name another: make PYTHON=python3.12"; exit 1; }

$(VENV)/ready: pyproject.toml | check-python
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --editable '.[speed,trio,reload]' --group test
	touch $@

clean:
	rm -rf .venv* .mypy_cache .ruff_cache
