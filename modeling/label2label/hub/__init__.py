"""The model card, its figures, and uploads to the Hub."""
