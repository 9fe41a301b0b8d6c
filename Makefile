# Each target is a line or two over a command that can be run by hand.
VENV := .venv
PYTHON ?= python3
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export BENTOML_DO_NOT_TRACK := True
export DVC_NO_ANALYTICS := 1

help:  ## list the targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(VENV)/installed: requirements.txt requirements/*.txt pyproject.toml
	$(PYTHON) -m venv $(VENV) && pip install -q -r requirements.txt
	pip install -q --no-deps -e . && python -m meadow.commands.plots_page && touch $@

install: $(VENV)/installed  ## make .venv with everything in it

demo: $(VENV)/installed  ## draw photos, run the pipeline, start the service, ask it
	meadow demo

repro: $(VENV)/installed  ## run what has changed of the pipeline
	dvc repro

serve: $(VENV)/installed  ## serve the Bento on http://localhost:3000
	bentoml serve models/bento --working-dir .

minio: $(VENV)/installed  ## bring up a MinIO server of your own as the remote
	meadow minio start

minio-stop: $(VENV)/installed  ## stop it; its data stay
	meadow minio stop

share: $(VENV)/installed  ## push all that a colleague needs to the remote
	meadow share

verify: $(VENV)/installed  ## prove that a clone gets it all back without running a stage
	meadow verify

image: $(VENV)/installed  ## build the image of the service
	meadow image

env: $(VENV)/installed  ## make the keys that deploy/compose.yaml needs
	python -m meadow.deployment.env_file

test: $(VENV)/installed  ## the whole test suite
	pytest -n 2 --dist loadfile

test-cluster: $(VENV)/installed  ## roll versions out and back on a whole Kubernetes, as root
	PYTHONPATH=tests python bench/rollouts.py

coverage: $(VENV)/installed  ## the whole test suite, and the branches of src that it does not take
	pytest -n 2 --dist loadfile --cov --cov-report=term-missing:skip-covered

corpus: $(VENV)/installed  ## 10,000 mutated photos, Schemathesis, slow and half requests
	CORPUS=5 pytest tests/test_service_faults.py

alerts: $(VENV)/installed  ## each alert within 60 s of its cause, at intervals of 15 s as committed
	INTERVAL=15 pytest -s tests/test_monitoring.py -k arrives

SECONDS ?= 1800
soak: $(VENV)/installed  ## half an hour at 70 % of the load: fails if memory or open files grow
	python bench/service.py soak $(SECONDS)

lint: $(VENV)/installed  ## format, lint and types
	ruff format --check && ruff check && mypy && lint-imports --no-logo --no-cache

check: lint  ## linters and the fast tests
	pytest -m "not slow"

LOCK := uv pip compile --quiet --no-header --no-annotate --python-version 3.11 --python-platform linux
lock:  ## pin all that requirements/*.txt bring along; versions stay where they fit
	$(LOCK) $(foreach group,serving learning tracking mlflow dask dev,requirements/$(group).txt) --output-file requirements/constraints.txt
	$(LOCK) requirements/serving.txt --constraint requirements/constraints.txt --output-file requirements/serving.lock.txt
	$(LOCK) deploy/airflow/requirements.txt --output-file deploy/airflow/requirements.lock.txt
	$(LOCK) deploy/mlflow/requirements.txt --output-file deploy/mlflow/requirements.lock.txt
	$(LOCK) deploy/feast/requirements.txt --output-file deploy/feast/requirements.lock.txt

clean:  ## remove the environment and what can be made again (not data, not the DVC cache)
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache src/*.egg-info

.PHONY: help install demo repro serve minio minio-stop share verify image env test test-cluster coverage corpus alerts soak lint check lock clean
