"""The model card, uploads to the Hub and the handler of Inference Endpoints."""
