"""The demonstration, and its corpus."""
