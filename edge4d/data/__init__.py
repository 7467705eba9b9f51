"""Clips to learn from and to be measured on: arrays, folders of videos, lists of videos, a user's own data set."""

from edge4d.data.opening import open_source
from edge4d.data.source import ClipSpec, Source, View

__all__ = ["ClipSpec", "Source", "View", "open_source"]
