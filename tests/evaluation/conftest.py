"""Fixtures of the room."""

from evaluated import embedded, folders

__all__ = ["embedded", "folders"]
