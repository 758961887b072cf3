# make demo   the embedded cohort through all four recipes, to results/report/index.html
# make test   the tests;  make test-slurm   on a SLURM of its own (root, Debian);  make test-noddi   with AMICO;
# make test-browser   the report in a headless Chromium (installs Debian's);
# make lint   the checks;  make doctor   is this machine ready?

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
READY := $(VENV)/.ready
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# One thread a training job: two models of the demo's size side by side beat one on two cores.
DEMO_THREADS := --set-threads train_vae=1 train_vqgan=1 train_regression=1 train_denoiser=1 anomaly_standards=1 infer_anomaly=1 infer_translation=1 \
	sample_generation=1 sample_synthesis=1 make_counterfactuals=1

.PHONY: all demo cohort test test-fast test-browser test-slurm test-noddi lint bench format doctor schema clean
.DEFAULT_GOAL := demo

$(READY): pyproject.toml envs/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, $(PYTHON) is older; run: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint envs/constraints.txt --editable '.[dev]'
	@touch $@

cohort: $(READY)
	$(BIN)/python -m pipeline_lib.cohort synthetic --out data/synthetic --sheet config/subjects.tsv

demo: $(READY)
	@started=$$(date +%s); \
	$(MAKE) --no-print-directory cohort && \
	$(BIN)/snakemake all --cores $(CORES) $(DEMO_THREADS) && \
	echo "Report: results/report/index.html ($$(( $$(date +%s) - started )) s)" && \
	$(BIN)/python -m pipeline_lib.report floors results

test: test-fast
	$(BIN)/python -m pytest -m dag

test-fast: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not dag and not slurm and not browser' --numprocesses $(CORES)

test-browser: $(READY)
	@sh tests/browser/install.sh $(VENV)-browser
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint envs/constraints.txt --editable '.[dev,browser,visualizer]'
	AXE=$(VENV)-browser/package/axe.min.js $(BIN)/python -m pytest -m browser tests/browser

test-slurm: $(READY)
	@sh tests/cluster/install.sh
	folder=$$(mktemp -d) && $(AS_ROOT) $(BIN)/python tests/cluster/small_slurm.py $$folder \
		$(abspath $(BIN))/python -m pytest -m slurm tests/cluster && $(AS_ROOT) rm -r $$folder

# AMICO is not open source and stays out of the environment of the other tests.
test-noddi: pyproject.toml envs/constraints.txt
	$(PYTHON) -m venv $(VENV)-noddi
	$(VENV)-noddi/bin/python -m pip install --quiet --disable-pip-version-check --constraint envs/constraints.txt \
		--editable '.[noddi]' pytest hypothesis
	$(VENV)-noddi/bin/python -m pytest tests/imaging/test_noddi.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/snakemake --lint

# denoising-diffusion-pytorch needs torchvision, but for training only: it stays out of the environment.
bench: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint envs/constraints.txt --no-deps --upgrade \
		--target $(VENV)-bench denoising-diffusion-pytorch
	PYTHONPATH=$(VENV)-bench $(BIN)/python benchmarks/peers.py $(BENCH)

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

doctor: $(READY)
	$(BIN)/python -m pipeline_lib.doctor

schema: $(READY)
	$(BIN)/python -m pipeline_lib.config schema config docs/configuration.md

clean:
	rm -rf results state logs .snakemake
