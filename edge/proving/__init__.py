"""Parts of the proof: its subjects, the reference's logits, the judgement, and adapters."""
