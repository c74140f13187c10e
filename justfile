# Tasks of the repository; `just` lists them. Each is one command that also runs without just.

python := if path_exists(".venv/bin/python") == "true" { ".venv/bin/python" } else { "python" }

# list the tasks
default:
    @just --list

# make .venv and install everything a developer needs
setup:
    python3 -m venv .venv
    .venv/bin/pip install -e '.[dev]'

# train with the defaults, or with overrides: just train rope=yarn
train *overrides:
    {{python}} -m aptlab train {{overrides}}

# the default tests; `just test slow` adds the slow ones
test which="":
    {{python}} -m pytest {{ if which == "slow" { "-m ''" } else { "" } }}

# style, types, layers, file lengths
check:
    {{python}} -m ruff check .
    {{python}} -m ruff format --check .
    {{python}} -m pyright
    {{python}} -m pytest -q tests/test_layers.py tests/test_house.py

# record the losses of the debug run again, then review the diff
golden:
    {{python}} tests/golden/record.py

# run every benchmark that this machine can run; tables go to benchmarks/results/
bench:
    {{python}} benchmarks/startup.py
    {{python}} benchmarks/train_speed.py
    {{python}} benchmarks/checkpoint_cost.py

# regenerate the pictures and tables of the README
docs:
    {{python}} benchmarks/readme.py

# write the tables of components and rows again, after an option or a room was added; `just docs` does so too
tables:
    {{python}} benchmarks/readme.py --tables
