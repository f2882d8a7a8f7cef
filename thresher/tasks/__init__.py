"""What labels mean, and what answers to them are worth. One task is one file."""

from thresher.tasks.base import Task, answers_of
from thresher.tasks.entities import marked
from thresher.tasks.infer import TASKS, infer, kind_on, task_of, task_on

__all__ = ["TASKS", "Task", "answers_of", "infer", "kind_on", "marked", "task_of", "task_on"]
