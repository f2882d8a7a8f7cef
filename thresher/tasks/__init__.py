"""What labels mean, and what answers to them are worth. One task is one file."""

from thresher.tasks.base import Task, answers_of
from thresher.tasks.entities import marked
from thresher.tasks.infer import TASKS, blank_is_none, infer, task_of

__all__ = ["TASKS", "Task", "answers_of", "blank_is_none", "infer", "marked", "task_of"]
