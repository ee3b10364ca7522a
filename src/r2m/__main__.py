"""`python -m r2m`: the command line, for rules that name their interpreter."""

from r2m.cli import main

main()
