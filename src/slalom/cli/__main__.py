"""`python -m slalom.cli`, the same as `slalom`."""

from slalom.cli import main

if __name__ == "__main__":
    main()
