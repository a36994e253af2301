"""`python -m strata_rules` is `strata`, for scripts that name the interpreter: `python -m venvstacks` was such a one."""

from strata_rules.entry import main

if __name__ == "__main__":
    main()
