"""`python -m homebound` is the `homebound` command."""

from .cli import main

main()
