"""`python -m thresher`, and the program `thresher`."""

import sys


def main() -> None:
    """Entry point. Ctrl-C may come while the command line itself is imported."""
    try:
        from thresher.cli import main as run
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
