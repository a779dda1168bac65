# Two commands set everything up on a machine with Python 3.11, make and git:
#   make demo   installs into .venv and reads the attributes of the person in a photo
#   make test   installs into .venv and runs the tests; make test-fast leaves out the slow ones
# make test-lowest and make test-newest run the fast tests with the lowest and the newest versions
# that pyproject.toml allows, in environments of their own.
# Two more need a prepared dataset:
#   make exports DATA=data/celeba     writes every file that runs without PyTorch to runs/exports
#   make benchmark DATA=data/celeba   makes and measures them, on a quiet machine

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# A worker for each core, a thread each; a file's tests share what they set up.
PYTEST_OPTIONS := -n auto --dist loadfile
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_OPTIONS)

DATA ?= data/celeba
TINY := mobilefacenet-tiny

.PHONY: demo test test-fast test-lowest test-newest exports benchmark lint format clean

demo: $(INSTALLED)
	$(BIN)/label2label predict "$$($(BIN)/python -c \
		'import matplotlib; print(matplotlib.get_data_path())')/sample_data/grace_hopper.jpg"

test: $(INSTALLED)
	$(PYTEST)

test-fast: $(INSTALLED)
	$(PYTEST) -m "not slow"

test-lowest test-newest: test-%: .venv-%/.installed
	OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest $(PYTEST_OPTIONS) -m "not slow"

# Every file that leaves PyTorch: whole models in float, INT8 and ncnn, the backbone, one that takes
# pixels and known words, and the page's in the browser (which needs npm).
exports: $(INSTALLED)
	rm -rf runs/exports
	$(BIN)/label2label export --int8 --calibration $(DATA) --ncnn --output runs/exports/model
	$(BIN)/label2label export --model $(TINY) --int8 --calibration $(DATA) \
		--output runs/exports/tiny
	$(BIN)/label2label export --backbone-only --output runs/exports/backbone
	$(BIN)/label2label export --uint8-input --known-labels --output runs/exports/device
	$(BIN)/label2label export --web --output spaces_app/on_device/assets

benchmark: exports
	$(BIN)/label2label evaluate --model runs/exports/model/model.onnx --data $(DATA) \
		--output results/celeba_test_onnx.json
	$(BIN)/label2label evaluate --model runs/exports/model/model_int8.onnx --data $(DATA) \
		--output results/celeba_test_int8.json
	$(BIN)/label2label evaluate --model runs/exports/tiny/model.onnx --data $(DATA) \
		--output results/$(TINY)/celeba_test_onnx.json
	$(BIN)/label2label evaluate --model runs/exports/tiny/model_int8.onnx --data $(DATA) \
		--output results/$(TINY)/celeba_test_int8.json
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/tables.py

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) .venv-* .mypy_cache .pytest_cache .ruff_cache

# torch first: what follows then finds it installed, whichever build it is.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# torch stays the pinned one, as its index has the builds; without what it needs, which uv resolves.
.venv-lowest/.installed: RESOLUTION := lowest-direct
.venv-newest/.installed: RESOLUTION := highest
.venv-lowest/.installed .venv-newest/.installed: .venv-%/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-$*
	grep '^torch==' constraints.txt > .venv-$*/torch.txt
	.venv-$*/bin/python -m pip install --quiet --no-deps --requirement .venv-$*/torch.txt uv
	.venv-$*/bin/uv pip install --quiet --python .venv-$*/bin/python \
		--constraint .venv-$*/torch.txt --resolution $(RESOLUTION) --editable '.[test]'
	touch $@
