"""`python -m aptlab` is the command `aptlab`."""

from aptlab.cli import run_process

if __name__ == "__main__":
    raise SystemExit(run_process())
