# `make help` lists what can be done. Everything runs in .venv, which is made when it is missing.
PYTHON ?= python3
BIN := .venv/bin
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
INSTALLED := .venv/.installed
# Kernels and subprocesses stay quiet and single-threaded in tests, so that outputs compare.
QUIET := TQDM_DISABLE=1 PYTHONHASHSEED=0

.DEFAULT_GOAL := help
.PHONY: help install reproduce smoke test test-long lint format unit notebooks-test verify-reference \
        notebooks-refresh reference simulation-checks imaging-accuracy imaging-speed imaging-tables learning learning-tables ablations training-speed explain-checks evaluation-speed soop soop-baselines soop-sensitivity soop-choice soop-curve soop-results bench template dictionary realdata lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 22

install: $(INSTALLED) ## make .venv with the locked set (done by every other target)
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(0 if sys.version_info >= (3, 11) else f"Python {v} found; 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ...")'
	@echo "Installing the locked set into .venv (a few minutes, once)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

reproduce: $(INSTALLED) ## the whole study on the embedded simulated cohort: reports/latest/index.html
	$(BIN)/rlvo reproduce

smoke: $(INSTALLED) ## a first look in two minutes: 60 simulated patients, reports/smoke/index.html
	$(BIN)/rlvo reproduce --profile smoke

test: lint unit notebooks-test verify-reference ## set-up, lint, unit tests, notebooks, reference run

lint: $(INSTALLED) ## ruff on code and notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

unit: $(INSTALLED) ## unit tests and doctests
	$(QUIET) $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not long" tests rlvo_lib

notebooks-test: $(INSTALLED) ## run the notebooks from an empty cache and compare their stored outputs
	cache=$$(mktemp -d) && trap 'rm -rf "$$cache"' EXIT && \
	RLVO_CACHE="$$cache" $(QUIET) $(BIN)/python -m pytest -q --nbval --nbval-current-env -n 2 --dist loadscope notebooks

verify-reference: $(INSTALLED) ## recompute every reported number of the committed reference run
	$(BIN)/rlvo verify reports/reference

test-long: $(INSTALLED) ## the slow tests
	$(QUIET) $(BIN)/python -m pytest -q -m long tests

format: $(INSTALLED) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks-refresh: $(INSTALLED) ## run the notebooks in place and keep their outputs
	$(QUIET) $(BIN)/python -m rlvo_lib.notebooks $(NOTEBOOKS)

reference: reproduce ## replace the committed reference run by the latest one (notebook 6 holds its statistics)
	$(BIN)/python -m rlvo_lib.report reference reports/latest reports/reference
	$(QUIET) $(BIN)/python -m rlvo_lib.notebooks notebooks/06_results.ipynb

DATE ?= $(shell date +%Y-%m-%d)

simulation-checks: $(INSTALLED) ## the simulator's long checks (about 40 minutes), dated, into docs/embedded_cohort.md and its appendix
	$(BIN)/python benchmarks/simulation.py studies/rlvo/simulation/$(DATE)
	sed -i.old 's#studies/rlvo/simulation/[0-9-]*/#studies/rlvo/simulation/$(DATE)/#' docs/embedded_cohort.md
	rm docs/embedded_cohort.md.old
	$(BIN)/python -m rlvo_lib.report page docs/embedded_cohort.md
	$(QUIET) $(BIN)/python -m rlvo_lib.notebooks notebooks/appendix_embedded_cohort.ipynb

imaging-accuracy: $(INSTALLED) ## registration, vessels and perfusion against the truth of simulated scans (about 20 minutes), dated
	$(BIN)/python benchmarks/imaging_accuracy.py studies/rlvo/imaging/$(DATE)
	$(MAKE) imaging-tables

imaging-speed: $(INSTALLED) ## what imaging costs, and ratios against named peers (about 12 minutes), dated
	$(BIN)/python benchmarks/imaging.py studies/rlvo/imaging/$(DATE)
	$(MAKE) imaging-tables

imaging-tables: $(INSTALLED) ## the latest tables of accuracy and speed into docs/imaging.md
	for table in accuracy speed; do \
	  latest=$$(ls -d studies/rlvo/imaging/*/ | while read d; do [ -f $$d$$table.csv ] && echo $$d; done | tail -1); \
	  sed -i.old "s#studies/rlvo/imaging/[0-9-]*/$$table.csv#$$latest$$table.csv#" docs/imaging.md; done
	rm docs/imaging.md.old
	$(BIN)/python -m rlvo_lib.report page docs/imaging.md

learning: $(INSTALLED) ## what the arms learn from cohorts of 481 simulated patients (hours; goes on when interrupted), dated
	$(BIN)/python benchmarks/learning.py studies/rlvo/learning/$(DATE) null signal interaction paper
	$(MAKE) learning-tables

learning-tables: $(INSTALLED) ## the latest tables of the learning benchmark into docs/learning.md
	latest=$$(dirname $$(ls studies/rlvo/learning/*/learning.csv | tail -1))/; \
	sed -i.old "s#studies/rlvo/learning/[^/]*/#$$latest#" docs/learning.md
	rm docs/learning.md.old
	$(BIN)/python -m rlvo_lib.report page docs/learning.md

ablations: $(INSTALLED) ## one arm varied in one respect at a time, and learning curves, out of fold (many hours), dated
	$(BIN)/rlvo ablate --out studies/rlvo/learning/$(DATE)/ablations.csv

training-speed: $(INSTALLED) ## an epoch of the default encoder against the DAFT papers' own (two minutes), dated
	$(BIN)/python benchmarks/epoch.py studies/rlvo/learning/$(DATE)/epoch.csv

explain-checks: $(INSTALLED) ## can explanations be believed: other outcomes, seeds and scenarios (half an hour), dated, into docs/explain.md
	$(BIN)/python benchmarks/explain_checks.py studies/rlvo/explain/$(DATE)
	sed -i.old 's#studies/rlvo/explain/[0-9-]*/#studies/rlvo/explain/$(DATE)/#' docs/explain.md
	rm docs/explain.md.old
	$(BIN)/python -m rlvo_lib.report page docs/explain.md

evaluation-speed: $(INSTALLED) ## the bootstrap and DeLong's test, timed beside scikit-learn (a minute), dated
	mkdir -p studies/rlvo/evaluation/$(DATE)
	$(BIN)/python benchmarks/evaluation.py studies/rlvo/evaluation/$(DATE)/speed.csv

SOOP := data/soop
SOOP_BASELINES := ["clinical_logistic","volume","territories","clinical_volume","clinical_territories"]
REPEATS ?= 10

$(SOOP)/dataset_description.json: | $(INSTALLED)
	@test -n "$(FROM)" || { echo "give the download: make $(MAKECMDGOALS) FROM=FOLDER (participants.tsv, ArterialAtlas136.nii.gz, lesion_masks/)"; exit 2; }
	$(BIN)/rlvo adapt soop --masks "$(FROM)/lesion_masks" --participants "$(FROM)/participants.tsv" --out $(SOOP)

soop: $(SOOP)/dataset_description.json ## the second study on real patients, all arms, ten cross-validations: make soop FROM=FOLDER [REPEATS=1]
	$(BIN)/rlvo reproduce --study soop --data $(SOOP) --out reports/soop --set repeats=$(REPEATS)

soop-baselines: $(SOOP)/dataset_description.json ## the second study, baselines only
	$(BIN)/rlvo reproduce --study soop --data $(SOOP) --out reports/soop-baselines --set 'arms=$(SOOP_BASELINES)'

soop-sensitivity: $(SOOP)/dataset_description.json ## the baselines again, with missing values that the models do not see
	$(BIN)/rlvo reproduce --study soop --data $(SOOP) --out reports/soop-no-indicators --set missing_indicators=False --set 'arms=$(SOOP_BASELINES)'

soop-choice: $(SOOP)/dataset_description.json ## candidates for lesion masks compared on folds inside each training part, dated
	$(BIN)/python -m rlvo_lib.nested soop $(SOOP) studies/soop/nested/$(DATE)

soop-curve: $(SOOP)/dataset_description.json ## learning curves in the number of patients, and what more would bring, dated
	$(BIN)/rlvo ablate --study soop --data $(SOOP) --groups patients --beside clinical_logistic,clinical_territories,daft_offset \
	--shares 0.25,0.4,0.55,0.75 --set repeats=2 --out studies/soop/learning/$(DATE)/ablations.csv

soop-results: $(INSTALLED) ## keep the result tables of the two runs, dated, without any row of a patient, and fill docs/soop.md
	for run in soop soop-no-indicators; do \
	$(BIN)/python -m rlvo_lib.report summary reports/$$run studies/soop/results/$(DATE)/$$run || exit 1; done
	$(BIN)/python -m rlvo_lib.report page docs/soop.md

bench: $(INSTALLED) ## time each stage from an empty cache (benchmarks/README.md)
	$(BIN)/python benchmarks/stages.py demo
	$(BIN)/python benchmarks/epoch.py
	$(BIN)/python benchmarks/evaluation.py

template: $(INSTALLED) ## make the head template again from the embedded anatomy (the same bytes)
	$(BIN)/python -m rlvo_lib.simulate.template

dictionary: $(INSTALLED) ## render data_dictionary.md from the study's data dictionary
	$(BIN)/python -m rlvo_lib.dictionary

realdata: $(INSTALLED) ## the real-data files of some tests: there, changed, or where to fetch them
	$(BIN)/python tests/realdata.py

lock: $(INSTALLED) ## renew requirements.lock from what is installed
	{ sed -n '/^#/p' requirements.lock; $(BIN)/python -m pip freeze --exclude-editable --disable-pip-version-check | sed 's/+cpu$$//'; } > requirements.new
	mv requirements.new requirements.lock

clean: ## delete caches and runs (not .venv, not the reference run)
	rm -rf .rlvo_cache reports/latest reports/smoke .pytest_cache .ruff_cache .hypothesis
