"""Rows to tensors."""
