"""Run a saved model: load, predict, evaluate, time."""
