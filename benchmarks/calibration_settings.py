"""What a setting of calibration gives: `python -m benchmarks.calibration_settings --damping 0.4 --residual 0.5`.

Codes the linear layers of a twin of the embedded default on the windows that `edge convert --calibrate` takes (or of
`--text`), and prints the mean KL to the float model on a handbook, on a novel, and over the default's own answers to
forty questions (chat_answers.jsonl: greedy, at most 64 tokens, in float32), all computed by converters.reference, and
the share of the answers' tokens that stay the likeliest; `own` is the KL on the first windows that it was calibrated
on. The settings in the table of quant/README.md are its options.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.texts import write_texts
from benchmarks.twins import DEFAULT, TWINS, write_twin
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.models import describe
from converters.reference import Streamed, Transform, hidden_states
from converters.verify import divergence
from edge.calibration_text import WINDOWS, read_text
from edge.chat.templates import ChatTemplate
from edge.runtimes.tokenizer import FolderTokenizer
from edge.sources import resolve
from quant.blocks import FORMATS, dequantize
from quant.calibrate import Calibration, Settings
from quant.codes import CodeStore
from quant.gptq import Settings as GptqSettings

LENGTH = 512
ANSWERS = Path(__file__).with_name("chat_answers.jsonl")


def windows(checkpoint: Path, text: str, count: int) -> NDArray[np.int64]:
    """[count, LENGTH] from the beginning of a text."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    ids = np.array(tokenizer.encode(text, add_special_tokens=False).ids, np.int64)
    return ids[: count * LENGTH].reshape(-1, LENGTH)


def answers(checkpoint: Path) -> tuple[NDArray[np.int64], list[slice]]:
    """A chat a row, padded at its end, and where the answer's tokens are predicted."""
    tokenizer = FolderTokenizer(checkpoint)
    dialect = tokenizer.dialect(frozenset())
    template = ChatTemplate(dialect.template or "", bos_token=dialect.bos_token, eos_token=dialect.eos_token)
    rows, places = [], []
    for line in ANSWERS.read_text().splitlines():
        chat = json.loads(line)
        prompt = tokenizer.encode(template.render([{"role": "user", "content": chat["user"]}]), special=True)
        answer = tokenizer.encode(chat["assistant"], special=False)
        rows.append([*prompt, *answer])
        places.append(slice(len(prompt) - 1, len(prompt) + len(answer) - 1))
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for row, found in zip(ids, rows, strict=True):
        row[: len(found)] = found
    return ids, places


def compare(
    checkpoint: Checkpoint,
    decoder: Decoder,
    ids: NDArray[np.int64],
    places: list[slice],
    transform: Transform,
) -> tuple[float, float]:
    """Over the predictions at `places` of each row: mean KL in nats, share of the likeliest tokens that stay."""
    head = Streamed(checkpoint).whole(decoder.lm_head)
    exact, coded = (hidden_states(checkpoint, decoder, ids, transform=t) for t in (None, transform))
    kl, same, count = 0.0, 0.0, 0
    for a, b, place in zip(exact, coded, places, strict=True):
        wanted, found = a[place] @ head.T, b[place] @ head.T
        kl += divergence(wanted, found).kl_mean * len(wanted)
        same += float((wanted.argmax(-1) == found.argmax(-1)).sum())
        count += len(wanted)
    return kl / count, same / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(".bench/calibration"))
    parser.add_argument("--model", default="permuted", choices=sorted(TWINS))
    parser.add_argument("--text", type=Path, help="instead of what ships")
    parser.add_argument("--windows", type=int, default=WINDOWS)
    parser.add_argument("--evaluate", type=int, default=8, help="windows of each text to evaluate on")
    parser.add_argument("--format", default="int4", choices=sorted(FORMATS))
    parser.add_argument("--damping", type=float, default=GptqSettings.damping)
    parser.add_argument("--shrinkage", type=float, default=GptqSettings.shrinkage)
    parser.add_argument("--upstream", type=float, default=Settings.upstream)
    parser.add_argument("--residual", type=float, default=Settings.residual)
    parser.add_argument("--passes", type=int, default=GptqSettings.passes)
    parser.add_argument("--static", action="store_true", help="scales chosen once, before any code")
    args = parser.parse_args()
    texts = {name: path.read_text() for name, path in write_texts(args.work / "texts").items()}
    directory = args.work / args.model
    if not (directory / "config.json").exists():
        write_twin(resolve(DEFAULT).directory, directory, args.model)
    coding = GptqSettings(args.damping, args.shrinkage, passes=args.passes, dynamic=not args.static)
    settings = Settings(coding, args.upstream, args.residual)
    fmt = FORMATS[args.format]
    with Checkpoint.open(directory) as checkpoint, tempfile.TemporaryDirectory() as kept:
        decoder, codes = describe(checkpoint), CodeStore(Path(kept))
        chosen = read_text(args.text, directory, decoder, count=args.windows)
        walk = Calibration(checkpoint, decoder, chosen.windows, lambda _: fmt, codes, settings=settings)
        while walk.layer < len(decoder.layers):
            walk.step()
        walk.close()

        def transform(weight: Weight, start: int, rows: NDArray[np.generic]) -> NDArray[np.float32]:
            if weight not in codes:
                return rows.astype(np.float32)
            return dequantize(codes.rows(weight, fmt, start, start + len(rows)))

        half = slice(LENGTH // 2 - 1, LENGTH - 1)
        tests = {
            name: (ids := windows(directory, texts[name], args.evaluate), [half] * len(ids))
            for name in ("technical", "fiction")
        }
        own = chosen.windows[: args.evaluate]
        tests |= {"own": (own, [half] * len(own)), "chat": answers(directory)}
        result = {name: compare(checkpoint, decoder, *test, transform) for name, test in tests.items()}
    row = {name: round(kl, 4) for name, (kl, _) in result.items()}
    row["chat_top1"] = round(result["chat"][1], 3)
    print(json.dumps({k: str(v) for k, v in vars(args).items()} | row))


if __name__ == "__main__":
    main()
