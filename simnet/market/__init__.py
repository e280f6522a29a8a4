"""What a market is made of: sellers' machines and prices, people who ask, and hindsight."""
