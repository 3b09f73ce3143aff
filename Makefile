# Windows, or no make: the README gives the same lines.
PYTHON ?= python3
BIN = .venv/bin
TWO = -n 2 --dist worksteal      # two processes of one thread each

run: .venv/ready           # train on real digits for a minute, draw, measure
	$(BIN)/python -m ddpm_tutorial train --data digits --seconds 60

test: .venv/test           # everything that CI runs
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest $(TWO) tests --cov
	$(BIN)/python tests/mutants/gate.py
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --nbval-lax --nbval-current-env --nbval-cell-timeout=1800 notebooks

test-fast: .venv/test      # the unit tests, without the slow ones: pictures of exercises, nbgrader
	$(BIN)/pytest $(TWO) -m "not slow" tests

lab: .venv/ready           # open the course
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb

play:                      # open the laboratory, in the browser, without a server
	$(PYTHON) -c "import pathlib, webbrowser; webbrowser.open(pathlib.Path('book/lab/index.html').resolve().as_uri())"

book: .venv/book           # build the book from the committed outputs: book/_build/html
	$(BIN)/python book/build.py

notebooks: .venv/ready     # execute and save all notebooks
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace notebooks/*.ipynb
	$(BIN)/python notebooks/slim.py notebooks/*.ipynb

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

.venv/test: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,teach,book]"
	touch $@

.venv/book: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[book]"
	touch $@

.PHONY: run test test-fast lab play book notebooks
