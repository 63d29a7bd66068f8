"""What a setting of calibration gives: `python -m benchmarks.calibration_settings --damping 0.4 --residual 1`.

Codes the linear layers of a twin of the embedded default on windows of a mixed text (three parts of the Brown
corpus, one of Python's standard library) or of `--text`, and prints the mean KL to the float model on a handbook and
a novel, all computed by converters.reference. The settings in the table of quant/README.md are its options.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.texts import brown, write_texts
from benchmarks.twins import DEFAULT, TWINS, write_twin
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.models import describe
from converters.reference import Streamed, Transform, hidden_states
from converters.verify import divergence
from edge.sources import resolve
from quant.blocks import FORMATS, dequantize
from quant.calibrate import Calibration, Settings
from quant.codes import CodeStore
from quant.gptq import Settings as GptqSettings

LENGTH = 512
SLICE = 3000
"""Characters of each piece of the mixed text."""


def mixed(folder: Path, code: str) -> str:
    """96 pieces spread over the Brown corpus, and after every third one of Python's standard library."""
    prose = brown(folder / "brown" / "package")
    pieces = []
    for i in range(96):
        pieces.append(prose[i * (len(prose) // 96) :][:SLICE])
        if i % 3 == 2:
            pieces.append(code[i // 3 * (len(code) // 32) :][:SLICE])
    return "\n\n".join(pieces)


def windows(checkpoint: Path, text: str, count: int, *, spread: bool) -> NDArray[np.int64]:
    """[count, LENGTH], from all over the text or from its beginning."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    ids = np.array(tokenizer.encode(text, add_special_tokens=False).ids, np.int64)
    found = ids[: len(ids) // LENGTH * LENGTH].reshape(-1, LENGTH)
    return found[np.linspace(0, len(found) - 1, count).astype(np.intp)] if spread else found[:count]


def kl(checkpoint: Checkpoint, decoder: Decoder, ids: NDArray[np.int64], transform: Transform) -> float:
    """Mean over the second half of each window, nats."""
    head = Streamed(checkpoint).whole(decoder.lm_head)
    exact, coded = (hidden_states(checkpoint, decoder, ids, transform=t) for t in (None, transform))
    half = slice(LENGTH // 2 - 1, LENGTH - 1)
    means = [
        divergence(a[half] @ head.T, b[half] @ head.T).kl_mean for a, b in zip(exact, coded, strict=True)
    ]
    return float(np.mean(means))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(".bench/calibration"))
    parser.add_argument("--model", default="permuted", choices=sorted(TWINS))
    parser.add_argument("--text", type=Path, help="instead of the mixed text")
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--evaluate", type=int, default=8, help="windows of each text to evaluate on")
    parser.add_argument("--format", default="int4", choices=sorted(FORMATS))
    parser.add_argument("--damping", type=float, default=GptqSettings.damping)
    parser.add_argument("--upstream", type=float, default=Settings.upstream)
    parser.add_argument("--residual", type=float, default=Settings.residual)
    args = parser.parse_args()
    texts = {name: path.read_text() for name, path in write_texts(args.work / "texts").items()}
    text = args.text.read_text() if args.text else mixed(args.work / "texts", texts["code"])
    directory = args.work / args.model
    if not (directory / "config.json").exists():
        write_twin(resolve(DEFAULT).directory, directory, args.model)
    settings = Settings(GptqSettings(args.damping), args.upstream, args.residual)
    fmt = FORMATS[args.format]
    with Checkpoint.open(directory) as checkpoint, tempfile.TemporaryDirectory() as kept:
        decoder, codes = describe(checkpoint), CodeStore(Path(kept))
        chosen = windows(directory, text, args.windows, spread=True)
        walk = Calibration(checkpoint, decoder, chosen, lambda _: fmt, codes, settings=settings)
        while walk.layer < len(decoder.layers):
            walk.step()
        walk.close()

        def transform(weight: Weight, start: int, rows: NDArray[np.generic]) -> NDArray[np.float32]:
            if weight not in codes:
                return rows.astype(np.float32)
            return dequantize(codes.rows(weight, fmt, start, start + len(rows)))

        result = {
            name: kl(
                checkpoint, decoder, windows(directory, texts[name], args.evaluate, spread=False), transform
            )
            for name in ("technical", "fiction")
        }
    print(
        json.dumps({k: str(v) for k, v in vars(args).items()} | {k: round(v, 4) for k, v in result.items()})
    )


if __name__ == "__main__":
    main()
