"""`python -m reclane.cli` is the `reclane` command."""

from reclane.cli import main

main()
