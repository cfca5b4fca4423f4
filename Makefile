# make demo    the whole pipeline on generated scenes, then the comparison table and the report
# make demo-all  the same with every method
# make ui      publish all results to MLflow, then its pages on this machine alone (PORT=5000)
# make bench   what stages cost on this machine, to bench.json, for `wsss plan` (PARAMS="FILE ...")
# make test    the test suite
# make test-slurm  the workflow on a real SLURM, where root may install one
# make ladder  what each part of a method adds, on VOC-animals (VOC_ROOT); hours, resumable
# make lint    format, lint, types and workflow checks
# Both use one environment, .venv, made from pinned versions.

# The first that runs and can make environments; a shim of a version manager may do neither.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
    $$p -c 'import venv, ensurepip' 2> /dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CORES ?= all
PORT ?= 5000
PARAMS ?= params.yaml
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: env demo demo-all bench ladder ui test test-slurm lint clean

env: $(READY)

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 with venv found: install one, or make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else f"Python 3.11 or 3.12 is needed, this is {v[0]}.{v[1]}: make PYTHON=/path/to/python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo demo-all: $(READY)
	@snakemake --cores $(CORES) --quiet host reason rules $(if $(filter demo-all,$@),--configfile workflow/presets/demo-all.yaml)
	@wsss compare --params results/scenes/params.yaml
	@echo "artifacts: results/scenes   table: results/scenes/comparison.md   times: results/scenes/timings.md"
	@echo "report, to open in a browser: results/scenes/report.html"

bench: $(READY)
	@wsss bench --params $(PARAMS) --out bench.json

ladder: $(READY)
	@python docs/ladder.py run
	@python docs/ladder.py

ui: $(READY)
	@for params in $$(ls results/*/params.yaml 2> /dev/null); do wsss publish --auto --params $$params; done
	@case "$$MLFLOW_TRACKING_URI" in \
	http*) echo "published to $$MLFLOW_TRACKING_URI" ;; \
	*) echo "http://127.0.0.1:$(PORT)   (Ctrl-C ends it)"; MLFLOW_DISABLE_TELEMETRY=true mlflow server \
	    --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}" --host 127.0.0.1 --port $(PORT) ;; \
	esac

test: $(READY)
	pytest --numprocesses auto --dist loadfile --no-loadscope-reorder  # the long files first

test-slurm: $(READY)
	pytest tests/slurm

lint: $(READY)
	ruff format --check .
	ruff check .
	mypy
	snakefmt --check Snakefile workflow
	snakemake --lint

clean:
	rm -rf results $(VENV)
