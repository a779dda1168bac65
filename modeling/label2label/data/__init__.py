"""Vocabularies, images, prepared datasets and augmentation."""
