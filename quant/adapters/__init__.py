"""Low-rank updates beside a model's weights: LoftQ, AdaLoRA, and how they are trained. torch lives in `training`."""
