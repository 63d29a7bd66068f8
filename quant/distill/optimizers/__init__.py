"""What turns gradients into steps: AdamW, the leaner COSMOS, and learning rates that fit another width."""
