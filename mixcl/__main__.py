"""``python -m mixcl`` is the command line."""

from mixcl.cli import main

main()
