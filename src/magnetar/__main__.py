"""`python -m magnetar` is the command line."""

from magnetar.cli.main import run

if __name__ == "__main__":
    run()
