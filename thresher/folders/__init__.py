"""A model's folder: where it lies, and what it holds, written by a stranger maybe."""
