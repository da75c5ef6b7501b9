"""`python -m flows` is `rshash`, in the same environment."""

from flows.cli import main

main()
