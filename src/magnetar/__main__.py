"""`python -m magnetar` is the command line."""

import sys

from magnetar.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
