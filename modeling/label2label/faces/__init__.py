"""Find faces in a photo and align them to the model's crop."""
