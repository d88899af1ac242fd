"""`python -m slalom.cli`, the same as `slalom`."""

from slalom.cli import main

main()
