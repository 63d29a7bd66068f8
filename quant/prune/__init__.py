"""PLATON: weights, or whole units of a Phi-3 model, are pruned while it trains."""
