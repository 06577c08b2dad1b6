"""`python -m vgid`."""

from vgid.cli import main

main()
