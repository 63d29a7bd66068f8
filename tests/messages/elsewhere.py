"""Errors that only another machine, engine or server makes: which test triggers each instead."""

from __future__ import annotations

ELSEWHERE: dict[str, str] = {}
