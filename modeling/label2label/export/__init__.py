"""Leave PyTorch behind, and measure what a model weighs and costs."""
