"""What labels mean, and what answers to them are worth. One task is one file."""

from thresher.tasks.base import Task
from thresher.tasks.infer import TASKS, blank_is_none, infer, task_of

__all__ = ["TASKS", "Task", "blank_is_none", "infer", "task_of"]
