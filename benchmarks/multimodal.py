"""What a conversation with text, an image and speech takes: `python -m benchmarks.multimodal FOLDER`.

FOLDER is a multimodal variant of a bundle. A line for each step: seconds, and the resident memory behind it. The steps
follow one another in one runtime, as in a chat: the decoder changes twice and goes back, so a memory that held three
bases would show.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

from edge.proving.samples import write_picture, write_recording
from edge.runtimes import Perceiving, open_runtime

TEXT = list(range(1000, 1064))
DECODED = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    process = psutil.Process()

    def step(title: str, run: Callable[[], object]) -> object:
        began = time.perf_counter()
        result = run()
        seconds = time.perf_counter() - began
        print(f"| {title} | {seconds:.2f} | {process.memory_info().rss >> 20} |", flush=True)
        return result

    print("| step | seconds | MiB resident |\n|---|---|---|")
    runtime = open_runtime(args.folder, threads=args.threads)
    assert isinstance(runtime, Perceiving)
    with tempfile.TemporaryDirectory() as folder:
        picture, recording = Path(folder) / "picture.png", Path(folder) / "recording.wav"
        write_picture(picture)
        write_recording(recording)
        image, audio = runtime.read("image", picture), runtime.read("audio", recording)
        prompts = {
            "text": [],
            "speech": [audio],
            "speech and an image": [audio, image],
            "the same and another question": [audio, image],
            "a new conversation of text": [],
        }
        ids: list[int] = []
        for title, media in prompts.items():
            if title.startswith("the same"):
                ids += TEXT
            else:
                ids = [*(token for medium in media for token in medium.ids), *TEXT]
            step(f"{title}: choose the decoder", partial(runtime.show, media))
            same = min(runtime.position, len(ids) - 1)
            runtime.rewind(same)
            step(f"{title}: read {len(ids) - same} of {len(ids)} tokens", partial(runtime.append, ids[same:]))
            step(f"{title}: {DECODED} tokens", lambda: [runtime.append([5]) for _ in range(DECODED)])
            ids += [5] * DECODED
    runtime.close()


if __name__ == "__main__":
    main()
