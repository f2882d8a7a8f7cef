"""What labels mean, and what answers to them are worth."""

from thresher.tasks.task import METRICS, Task

__all__ = ["METRICS", "Task"]
