"""`python -m lockstep.cli`."""

from lockstep.cli import main

if __name__ == "__main__":
    main()
