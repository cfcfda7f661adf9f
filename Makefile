# make book [PROFILE=quick|standard|paper] [VARIANT="padding=reflect n=64"], make serve, make lab,
# make test, make test-fast, make test-nightly, make lint, make pdf, make course, make release, make clean
PYTHON ?= python3
PROFILE ?= standard
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export PYTHONUTF8 := 1
# Libraries are compiled once, not whenever a process loads them.
unexport PYTHONDONTWRITEBYTECODE
# They reach the shell through the environment, so that no character of theirs means anything to it.
export PROFILE
export VARIANT

.PHONY: book serve lab test test-fast test-nightly lint pdf course release clean
.DEFAULT_GOAL := book

book: $(INSTALLED)
	@$(BIN)/ppp build --profile "$$PROFILE" --variant "$$VARIANT"

serve: $(INSTALLED)
	@test -f "build/$$PROFILE/html/index.html" || { \
	  echo "No pages yet: run 'make book PROFILE=$$PROFILE' first." >&2; exit 2; }
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory "build/$$PROFILE/html" 8000

# The kernel of a notebook is this environment's, whatever goes by its name in the user's folder.
lab: $(INSTALLED)
	@test -x $(BIN)/jupyter-lab || { echo "Installing JupyterLab into $(VENV), once." && \
	  $(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[lab]"; }
	JUPYTER_PREFER_ENV_PATH=1 $(BIN)/jupyter-lab notebooks/padding-schemes.ipynb

# Two workers with one thread each: threads of the one would only wait for those of the other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(INSTALLED)
	$(PYTEST)

# The library alone.
test-fast: $(INSTALLED)
	$(PYTEST) -m "not slow and not nightly" tests/ppp ppp

# Also what takes long: kills at every moment, odd command lines, simulations, large networks.
test-nightly: $(INSTALLED)
	PPP_SLURM_SEEDS=4 $(PYTEST) -m ""

pdf: book
	@$(BIN)/ppp pdf --profile "$$PROFILE" --variant "$$VARIANT"

course: $(INSTALLED)
	@$(BIN)/ppp course --check --force

# From nothing: what is released was built by this commit alone.
release: $(INSTALLED)
	rm -rf "build/$$PROFILE"
	@$(BIN)/ppp build --profile "$$PROFILE"
	@$(BIN)/ppp release --profile "$$PROFILE" --force

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf build dist .snakemake

# The mark comes last, so that an installation that was broken off is begun again; one that
# was whole is brought up to date in place.
$(INSTALLED): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is not." \
	    "Name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "Installing into $(VENV), once; PyTorch is large."
	@test -f $@ || rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[test]"
	@touch $@
