"""Training: recipes, the loop that every system shares, and the run folder that it writes."""

from t2ilib.training.loop import Generate, Samples, train
from t2ilib.training.recipe import DataSettings, Recipe, TextSettings, TrainingSettings, load_recipe, recipe_names
from t2ilib.training.run import Run

__all__ = [
    "DataSettings",
    "Generate",
    "Recipe",
    "Run",
    "Samples",
    "TextSettings",
    "TrainingSettings",
    "load_recipe",
    "recipe_names",
    "train",
]
