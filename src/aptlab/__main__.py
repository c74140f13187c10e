"""`python -m aptlab` is the command `aptlab`."""

from aptlab.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
