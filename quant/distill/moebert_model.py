"""The student of MoEBERT (arXiv 2204.07675): a transformers model whose MLPs are experts, one for each token id."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from quant.distill.cut import Kind
from quant.distill.models import layers_of
from quant.distill.moebert_importance import mlp_ends
from quant.distill.moebert_split import Split, deal, experts_of_config
from quant.distill.quiet import quiet

NAMES: dict[Kind, tuple[str, str]] = {
    "decoder": ("phi3_moebert", "Phi3MoEBERTForCausalLM"),
    "encoder": ("bert_moebert", "BertMoEBERTForSequenceClassification"),
}
"""model_type and architecture of what is written; `converters` reads both."""
_DENSE: dict[Kind, tuple[str, str]] = {
    "decoder": ("phi3", "Phi3ForCausalLM"),
    "encoder": ("bert", "BertForSequenceClassification"),
}


class Ids:
    """The token ids of the pass that is running: what an MLP is not told, and routes by."""

    def __init__(self, embeddings: torch.nn.Module) -> None:
        self.now = torch.zeros(0, dtype=torch.int64)
        embeddings.register_forward_pre_hook(self._keep)

    def _keep(self, module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        self.now = inputs[0]


class Experts(torch.nn.Module):
    """MLPs of which each token takes one, by its id; it weighs 1. `table`: float32 [vocabulary], whole numbers."""

    table: torch.Tensor

    def __init__(self, experts: Sequence[torch.nn.Module], table: torch.Tensor, ids: Ids) -> None:
        super().__init__()
        self.experts = torch.nn.ModuleList(experts)
        self.register_buffer("table", table.float())
        self._ids = ids

    def forward(self, hidden: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        """hidden [batch, length, width] to the same shape."""
        route = self.table[self._ids.now].flatten()
        tokens = hidden.flatten(0, 1)
        output = torch.empty_like(tokens)
        for index, expert in enumerate(self.experts):
            own = route == index
            output[own] = expert(tokens[own]).to(output.dtype)
        return output.view_as(hidden)


class BertExpert(torch.nn.Module):
    """The second half of a BERT layer: dense, activation, dense, dropout, LayerNorm(x + that), with its own of each."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.intermediate, self.output = copy.deepcopy(layer.intermediate), copy.deepcopy(layer.output)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.output(self.intermediate(hidden), hidden)
        return found


def split_student(
    model: Any, kind: Kind, split: Split, scores: NDArray[Any], tables: NDArray[np.int64]
) -> Any:
    """`model`, in place, with experts of its own neurons. scores: importance [layers, neurons]; tables: [layers,
    vocabulary]."""
    ids = Ids(model.get_input_embeddings())
    for layer, score, table in zip(layers_of(model), scores, tables, strict=True):
        experts = [_expert(layer, kind, torch.from_numpy(own)) for own in deal(score, split)]
        _replace(layer, kind, Experts(experts, torch.from_numpy(table), ids))
    model.config.intermediate_size = split.size
    return model


def _expert(layer: Any, kind: Kind, neurons: torch.Tensor) -> torch.nn.Module:
    """A copy of the layer's MLP with these neurons alone."""
    expert = copy.deepcopy(layer.mlp) if kind == "decoder" else BertExpert(layer)
    first, second = _ends(expert, kind)
    # Of SwiGLU the rows of gate, and then those of up.
    rows = torch.cat([neurons + at for at in range(0, first.out_features, second.in_features)])
    first.weight = torch.nn.Parameter(first.weight.detach()[rows].clone())
    if first.bias is not None:
        first.bias = torch.nn.Parameter(first.bias.detach()[rows].clone())
    second.weight = torch.nn.Parameter(second.weight.detach()[:, neurons].clone())
    first.out_features, second.in_features = len(rows), len(neurons)
    return expert


def _ends(expert: Any, kind: Kind) -> tuple[torch.nn.Linear, torch.nn.Linear]:
    if kind == "decoder":
        return expert.gate_up_proj, expert.down_proj
    return mlp_ends(expert, kind)


def _replace(layer: Any, kind: Kind, experts: Experts) -> None:
    if kind == "decoder":
        layer.mlp = experts
    else:
        layer.intermediate, layer.output = torch.nn.Identity(), experts


def write_student(student: Any, kind: Kind, split: Split, config: dict[str, Any], output: Path) -> None:
    """config.json and model.safetensors in `output`: `config` is the teacher's, and says the type of the weights."""
    name, architecture = NAMES[kind]
    dtype = getattr(torch, str(config.get("dtype") or config.get("torch_dtype") or "float32"))
    tied = kind == "decoder" and bool(config.get("tie_word_embeddings"))
    tensors = {
        key: value.detach().to("cpu", torch.float32 if key.endswith(".table") else dtype).contiguous()
        for key, value in student.state_dict().items()
        if not (tied and key == "lm_head.weight")
    }
    save_file(tensors, output / "model.safetensors", {"format": "pt"})
    # auto_map names code that would make a dense model of it.
    own = {key: value for key, value in config.items() if key != "auto_map"} | {
        "model_type": name,
        "architectures": [architecture],
        "intermediate_size": split.size,
        "num_local_experts": split.experts,
        "shared_neurons": split.shared,
    }
    (output / "config.json").write_text(json.dumps(own, indent=2) + "\n", encoding="utf-8")
    for file in output.glob("*.safetensors"):
        file.chmod((output / "config.json").stat().st_mode)  # safetensors makes them for the owner alone


def load_student(directory: Path) -> Any:
    """The torch model of a checkpoint that `write_student` made, in float32 and evaluation mode."""
    quiet()
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    kind: Kind = "decoder" if config["model_type"] == NAMES["decoder"][0] else "encoder"
    split = experts_of_config(config)
    name, architecture = _DENSE[kind]
    keys = {"model_type", "architectures", "num_local_experts", "shared_neurons", "dtype", "torch_dtype"}
    made = AutoConfig.for_model(
        name, **{k: v for k, v in config.items() if k not in keys}, architectures=[architecture]
    )
    auto = AutoModelForCausalLM if kind == "decoder" else AutoModelForSequenceClassification
    model = auto.from_config(made, dtype=torch.float32, attn_implementation="sdpa")  # type: ignore[no-untyped-call]
    layers = len(layers_of(model))
    tables = np.zeros((layers, int(config["vocab_size"])), np.int64)
    # The model is as wide as one expert, and every expert is all of it until its own weights come.
    whole = Split(split.experts, split.size, split.size)
    split_student(model, kind, whole, np.zeros((layers, split.size)), tables)
    missing, unexpected = model.load_state_dict(load_file(directory / "model.safetensors"), strict=False)
    model.tie_weights()
    assert not unexpected, unexpected
    assert set(missing) <= {"lm_head.weight"}, missing
    return model.eval()
