"""`python -m thresher`, and the program `thresher`."""

import os
import sys


def main() -> None:
    """Entry point. Ctrl-C may come while the command line itself is imported."""
    for place, stream in enumerate(("stdin", "stdout", "stderr")):
        if (
            getattr(sys, stream) is None
        ):  # closed, as by >&-: the next file that is opened would take its place
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, stream, open(place, "r" if place == 0 else "w"))  # noqa: SIM115 - to the end
    try:
        from thresher.cli import main as run
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
