"""The story that `squall demo` plays: the same fault against the shop four times, each time better prepared."""

from squall.cli.story.acts import ACTS, Act
from squall.cli.story.numbers import HIGH, numbers_of
from squall.cli.story.telling import Played, draw, tell_act, what_did_not_hold
from squall.cli.story.watching import Pools

__all__ = ["ACTS", "HIGH", "Act", "Played", "Pools", "draw", "numbers_of", "tell_act", "what_did_not_hold"]
