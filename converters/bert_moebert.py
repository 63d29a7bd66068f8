"""A BERT classifier whose MLPs are experts (`model_type` bert_moebert), as `edge distill --method moebert` writes it.

The names are transformers' BertForSequenceClassification's, but for a layer's `intermediate` and `output`: in their
place it has `output.table` float32 [vocabulary], the number of each token's expert, and `output.experts.E.` before the
names of both. `intermediate_size` is that of one expert, `num_local_experts` how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from converters.checkpoint import Checkpoint
from converters.decoder import Weight
from converters.encoder_tensors import layer_norm, linear
from converters.encoders import LayerNorm, Linear, Mlp, SelfAttention, weights_of
from converters.model_parts import expect_architecture
from converters.models.phi3_moebert import check_table
from converters.strict_config import StrictConfig
from converters.tensor_map import TensorMap

MODEL_TYPE, ARCHITECTURE = "bert_moebert", "BertMoEBERTForSequenceClassification"
_WITHOUT_EFFECT = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "shared_neurons",
    "label2id", "problem_type", "pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings",
    "finetuning_task", "directionality", "pooler_fc_size", "pooler_num_attention_heads",
    "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type",
)  # fmt: skip


@dataclass(frozen=True)
class BertExpert:
    """norm(x + mlp(x))."""

    mlp: Mlp
    norm: LayerNorm


@dataclass(frozen=True)
class RoutedLayer:
    """x = attention.norm(x + attention(x)), and then one expert for each token, the `table`'s for its id."""

    attention: SelfAttention
    table: Weight
    experts: tuple[BertExpert, ...]


@dataclass(frozen=True)
class RoutedBert:
    """classifier(tanh(pooler(x at the first token))) of what embeddings, their norm and the layers make of the ids."""

    heads: int
    norm_eps: float
    classes: int
    words: Weight
    positions: Weight
    types: Weight
    norm: LayerNorm
    layers: tuple[RoutedLayer, ...]
    pooler: Linear
    classifier: Linear

    def weights(self) -> Iterator[Weight]:
        return weights_of(self)


def describe_bert(checkpoint: Checkpoint) -> RoutedBert:
    """Raises what `converters.models.describe` raises for a checkpoint that is not whole, or says more than this."""
    expect_architecture(checkpoint, ARCHITECTURE)
    config, tensors = StrictConfig(checkpoint.config), TensorMap(checkpoint)
    for key in _WITHOUT_EFFECT:
        config.take(key)
    config.expect("hidden_act", "gelu")
    config.expect("position_embedding_type", "absolute")
    for key in ("is_decoder", "is_encoder_decoder", "add_cross_attention"):
        config.expect(key, False)
    config.expect("chunk_size_feed_forward", 0)
    size, vocabulary = config.integer("hidden_size"), config.integer("vocab_size")
    classes = len(config.take("id2label") or (0, 1))
    inner, experts = config.integer("intermediate_size"), config.integer("num_local_experts")
    embeddings = "bert.embeddings"

    def table(name: str, source: str, rows: int) -> Weight:
        return tensors.whole(name, f"{embeddings}.{source}.weight", rows, size)

    def attention(name: str, source: str) -> SelfAttention:
        parts = {"q": "self.query", "k": "self.key", "v": "self.value", "o": "output.dense"}
        found = {
            key: linear(tensors, f"{name}.{key}", f"{source}.{part}", size, size)
            for key, part in parts.items()
        }
        return SelfAttention(
            norm=layer_norm(tensors, f"{name}.norm", f"{source}.output.LayerNorm", size),
            q=found["q"],
            k=found["k"],
            v=found["v"],
            o=found["o"],
        )

    def expert(name: str, source: str) -> BertExpert:
        up = linear(tensors, f"{name}.up", f"{source}.intermediate.dense", inner, size)
        down = linear(tensors, f"{name}.down", f"{source}.output.dense", size, inner)
        return BertExpert(
            Mlp(up, down), layer_norm(tensors, f"{name}.norm", f"{source}.output.LayerNorm", size)
        )

    def layer(index: int) -> RoutedLayer:
        name, source = f"layers.{index}", f"bert.encoder.layer.{index}"
        routing = tensors.whole(f"{name}.moe.table", f"{source}.output.table", vocabulary)
        check_table(checkpoint, f"{source}.output.table", experts)
        every = (expert(f"{name}.moe.{e}", f"{source}.output.experts.{e}") for e in range(experts))
        return RoutedLayer(attention(f"{name}.attention", f"{source}.attention"), routing, tuple(every))

    made = RoutedBert(
        heads=config.integer("num_attention_heads"),
        norm_eps=config.number("layer_norm_eps", 1e-12),
        classes=classes,
        words=table("embedding", "word_embeddings", vocabulary),
        positions=table("positions", "position_embeddings", config.integer("max_position_embeddings")),
        types=table("types", "token_type_embeddings", config.integer("type_vocab_size", 2)),
        norm=layer_norm(tensors, "embedding.norm", f"{embeddings}.LayerNorm", size),
        layers=tuple(layer(i) for i in range(config.integer("num_hidden_layers"))),
        pooler=linear(tensors, "pooler", "bert.pooler.dense", size, size),
        classifier=linear(tensors, "classifier", "classifier", classes, size),
    )
    config.finish()
    tensors.finish()
    return made
