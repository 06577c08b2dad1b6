"""`python -m vgid`."""

from vgid.commands import main

main()
