"""Training: recipes, the loop that every task shares, and the run folder that it writes."""

from t2ilib.training.loop import train
from t2ilib.training.recipe import (
    ClipSettings,
    DataSettings,
    EncoderSettings,
    EvaluationSettings,
    Recipe,
    TrainingSettings,
    load_recipe,
    recipe_names,
)
from t2ilib.training.run import Run

__all__ = [
    "ClipSettings",
    "DataSettings",
    "EncoderSettings",
    "EvaluationSettings",
    "Recipe",
    "Run",
    "TrainingSettings",
    "load_recipe",
    "recipe_names",
    "train",
]
