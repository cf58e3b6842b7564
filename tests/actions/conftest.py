"""The fixtures of steps."""

from tests.steps import beater, doing, token, working

__all__ = ["beater", "doing", "token", "working"]
