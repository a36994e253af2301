"""The command line: one module per command, each a thin shell round `strata_rules.session`.

Data goes to standard output, everything else to standard error. A command raises StrataError or gives an exit code; it
never prints an error itself.
"""
