# `make` alone prints the targets. Everything installs into .venv; `make demo` and `make test` set it up where needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VENDOR := nsclc_mtl/viewer/static/vendor
PIP := $(BIN)/python -m pip --disable-pip-version-check
# For example: make setup PIP_FLAGS=--no-cache-dir
PIP_FLAGS ?=
# Overrides for the verbs: make train ARGS="model=abmil trainer.max_epochs=3"
ARGS ?=
# Processes of the test run, each with one thread.
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup viewer demo serve test test-all test-browser lint types bench bench-slides bench-scans bench-train bench-serve data wheel wheel-check ci tile extract train evaluate predict clean

help:  ## print the targets
	@awk -F ':.*## ' '/^[a-z -]+:.*## / {printf "  make %-12s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed  ## create .venv and install everything, pinned by constraints.txt

# pyradiomics builds only without build isolation, after NumPy is there, and on Python 3.12 with names that 3.11 still had.
$(VENV)/.installed: pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 14) or sys.exit("Python 3.11, 3.12 or 3.13 is needed, this is %d.%d: make setup PYTHON=python3.12" % v[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install $(PIP_FLAGS) -c constraints.txt -e '.[dev,hub,onnx,timm,viewer,federated,cluster,torchjd,tracking]' 'setuptools>=77' wheel
	PYTHONPATH=tools/old_configparser $(PIP) install $(PIP_FLAGS) -c constraints.txt --no-build-isolation 'pyradiomics==3.0.1'
	@touch $@
	@if command -v npm > /dev/null; then $(MAKE) --no-print-directory viewer; else echo "npm is not here: mtl serve will have no slide and scan viewer; install Node.js and run make viewer"; fi

viewer: $(VENDOR)/made  ## bring the slide and scan viewers of `mtl serve` (npm)

# Pinned by package-lock.json; scripts of packages are not run. Only the built files stay beside the pages, and go into the wheel.
$(VENDOR)/made: nsclc_mtl/viewer/package.json nsclc_mtl/viewer/package-lock.json Makefile
	cd nsclc_mtl/viewer && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	mkdir -p $(VENDOR)
	# the module as it is: index.min.js of this package holds it as a text
	sed '/^\/\/# sourceMappingURL=/d' nsclc_mtl/viewer/node_modules/@niivue/niivue/dist/index.js > $(VENDOR)/niivue.js
	cp nsclc_mtl/viewer/node_modules/openseadragon/build/openseadragon/openseadragon.min.js $(VENDOR)/openseadragon.js
	cp nsclc_mtl/viewer/node_modules/openseadragon/LICENSE.txt $(VENDOR)/openseadragon-license.txt
	cd nsclc_mtl/viewer/node_modules && for file in $$(ls */[Ll][Ii][Cc][Ee][Nn]* @*/*/[Ll][Ii][Cc][Ee][Nn]* | grep -v '^openseadragon/\|^@rollup/'); do \
		echo "== $$(dirname $$file)"; cat "$$file"; echo; done > ../static/vendor/niivue-licenses.txt
	rm -rf nsclc_mtl/viewer/node_modules
	@touch $@

demo: setup  ## make the phantom cohort and run tile, extract, train, evaluate, predict on it
	$(BIN)/mtl demo $(ARGS)

serve: setup  ## show the newest run of `mtl predict` in the browser (the demo's, after make demo)
	@run=$$(ls -t runs/predict/*/predictions.csv 2> /dev/null | head -1); \
	test -n "$$run" || { echo "there is no run of mtl predict here: make demo, then make serve"; exit 2; }; \
	exec $(BIN)/mtl serve "run=$${run%/predictions.csv}" $(ARGS)

test: setup  ## run the tests that take seconds
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

test-all: setup  ## run all tests, the slow ones too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m 'slow or not slow' $(ARGS)

test-browser: setup  ## run the tests that drive chromium (Debian's package) before the pages of mtl serve
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/viewer $(ARGS)

lint: setup  ## style, and the floors of the house (imports only run downwards)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup  ## check the types
	$(BIN)/mypy

bench: setup  ## ratios of speed against the plain way of doing the same
	OMP_NUM_THREADS=1 $(BIN)/python tests/bench.py

bench-slides: setup  ## ratios of reading slides: fast way, OpenSlide and pure decoding (needs MTL_REAL_DATA)
	OMP_NUM_THREADS=1 $(BIN)/python tests/bench_slides.py $(ARGS)

bench-train: setup  ## training steps against the products they are made of, packing, growth, disk and memory
	OMP_NUM_THREADS=1 $(BIN)/python tests/bench_train.py $(ARGS)

bench-scans: setup  ## radiomics a minute and memory against plain sequential pyradiomics (needs MTL_REAL_DATA)
	OMP_NUM_THREADS=1 $(BIN)/python tests/bench_scans.py $(ARGS)

bench-serve: setup  ## latency of slide tiles and memory of the server under four viewers
	OMP_NUM_THREADS=1 $(BIN)/python tests/bench_serve.py $(ARGS)

# The hash holds on one architecture; elsewhere `mtl demo --verify` compares decoded content.
data: setup $(VENV)/.dvc  ## regenerate data/ and check that its hash holds (data.dvc)
	@test ! -e data || test -f data/phantom.json || { echo "data/ is not the phantom cohort: move it away first"; exit 1; }
	rm -rf data
	$(BIN)/mtl demo --data-only --out data
	DVC_NO_ANALYTICS=1 $(BIN)/dvc add --quiet data
	git diff --exit-code -- data.dvc

$(VENV)/.dvc: pyproject.toml constraints.txt $(VENV)/.installed
	$(PIP) install $(PIP_FLAGS) -c constraints.txt -e '.[data]'
	@touch $@

wheel: setup  ## build the wheel into dist/, with the viewers of `mtl serve` where npm is here
	rm -rf dist
	@if command -v npm > /dev/null; then $(MAKE) --no-print-directory viewer; fi
	$(BIN)/python -m build --wheel --outdir dist

wheel-check: wheel  ## install the wheel in a clean environment outside the checkout and compose a configuration there
	@set -e; away=$$(mktemp -d); trap 'rm -rf "$$away"' EXIT; \
	$(PYTHON) -m venv "$$away/venv"; \
	"$$away/venv/bin/python" -m pip --disable-pip-version-check install -q $(PIP_FLAGS) -c constraints.txt dist/*.whl; \
	cd "$$away"; venv/bin/mtl --version; venv/bin/mtl train --show > shown.yaml; test -s shown.yaml; \
	venv/bin/mtl serve run=none --show > served.yaml; test -s served.yaml; \
	pages=$$(dirname "$$(venv/bin/python -c 'import nsclc_mtl; print(nsclc_mtl.__file__)')")/viewer; \
	test -s "$$pages/static/base.css"; test -s "$$pages/templates/base.html.j2"; test -s "$$pages/NOTICE.md"; \
	if command -v npm > /dev/null; then test -s "$$pages/static/vendor/openseadragon.js"; test -s "$$pages/static/vendor/niivue.js"; fi; \
	test "$$(ls)" = "$$(printf 'served.yaml\nshown.yaml\nvenv')"; echo "the wheel composes mtl train and mtl serve in a clean environment"

ci: test lint types wheel-check  ## what .ci/run runs

tile extract train evaluate predict: setup  ## run one verb: make train ARGS="model=abmil"
	$(BIN)/mtl $@ $(ARGS)

clean:  ## remove what was built; data/, out/, runs/ and .venv stay
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find nsclc_mtl tests -name __pycache__ -type d -prune -exec rm -rf {} +
