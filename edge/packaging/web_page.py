"""The Android app's page, made one that a browser opens from a server: its policy, icon and manifest."""

from __future__ import annotations

import re
from pathlib import Path

_POLICY = {
    "default-src": "'none'",
    "script-src": "'self' blob: 'wasm-unsafe-eval'",
    "worker-src": "'self' blob:",
    "connect-src": "'self' blob:",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "manifest-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
}
"""Nothing from elsewhere; wllama starts its threads from blobs."""
_HEAD = """\
<meta name="referrer" content="no-referrer">
<meta name="description" content="Chat with a language model that runs in this browser">
<meta name="theme-color" content="#ffffff" media="(prefers-color-scheme: light)">
<meta name="theme-color" content="#101316" media="(prefers-color-scheme: dark)">
<link rel="icon" href="icon.svg">
<link rel="manifest" href="app.webmanifest">"""
_OWN = '<link rel="stylesheet" href="web.css">\n<script src="js/storage.js"></script>'
_NOSCRIPT = "<noscript>This page needs JavaScript: the model runs in it.</noscript>"


def rewrite(index: Path) -> None:
    """Change index.html in place. Raises ValueError when it is not the page that this was written for."""
    policy = "; ".join(f"{name} {value}" for name, value in _POLICY.items())
    text = index.read_text(encoding="utf-8")
    for pattern, new in (
        (r'(?<=Security-Policy" content=")[^"]*', policy),
        (r'<link rel="icon"[^>]*>', _HEAD),
        (r'(?=<script src="js/theme.js">)', f"{_OWN}\n"),
        (r"(?=</body>)", f"{_NOSCRIPT}\n"),
    ):
        text, count = re.subn(pattern, new, text)
        if count != 1:
            raise ValueError(f"{index}: {pattern} stands there {count} times")
    index.write_text(text, encoding="utf-8")
