"""The command line: one command a file; parse, call, print."""

from thresher.cli.app import app, main

__all__ = ["app", "main"]
