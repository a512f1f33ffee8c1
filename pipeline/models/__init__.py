"""Networks: own small nets for images and signals, any model of timm by name, and their weights on disk."""

from pipeline.models.build import build_model

__all__ = ["build_model"]
