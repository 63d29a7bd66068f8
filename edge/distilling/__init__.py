"""What `edge distill` reads and decides before it trains."""
