"""An encoder as an ONNX graph, by optimum: a program of its own, `python optimum_export.py CHECKPOINT OUT`.

optimum's exporter takes no transformers that the rest of quant/distill works with (pyproject.toml, extra `encoders`),
so this file runs in another environment than its neighbours and imports none of them. It writes OUT/model.onnx, and of
the int64 arrays in OUT/probes.npz the checkpoint's own answers, by transformers in float32, to OUT/answers.npy, with
OUT/versions.json of what wrote the graph.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

MISSING = 3
"""Exit status where a package is not installed; its name is the last line of stderr."""


def export(checkpoint: Path, output: Path) -> None:
    """Write the graph and the answers. A model with a head gives logits [n, classes], another its last hidden states
    [n, length, hidden]. Nothing is fetched, and no code of the checkpoint's runs."""
    import numpy as np
    import torch
    from optimum.exporters.onnx import main_export
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    classes = str((config.architectures or [""])[0]).endswith("ForSequenceClassification")
    torch.manual_seed(0)
    main_export(
        str(checkpoint),
        output,
        task="text-classification" if classes else "feature-extraction",
        library_name="transformers",
        framework="pt",
        do_validation=False,
        local_files_only=True,
        trust_remote_code=False,
    )
    auto = AutoModelForSequenceClassification if classes else AutoModel
    model = auto.from_pretrained(
        checkpoint, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    with np.load(output / "probes.npz") as probes, torch.inference_mode():
        found = model.eval()(**{name: torch.from_numpy(values) for name, values in probes.items()})
    np.save(output / "answers.npy", (found.logits if classes else found.last_hidden_state).numpy())
    tools = ("optimum", "optimum-onnx", "torch", "transformers")
    (output / "versions.json").write_text(json.dumps({name: version(name) for name in tools}))


if __name__ == "__main__":
    try:
        export(Path(sys.argv[1]), Path(sys.argv[2]))
    except ModuleNotFoundError as error:
        print(error.name, file=sys.stderr)
        raise SystemExit(MISSING) from None
