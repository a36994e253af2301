"""`python -m strata_rules` is `strata`, for scripts that name the interpreter, as with `python -m venvstacks`."""

from strata_rules.entry import main

if __name__ == "__main__":
    main()
