"""Recipes: Python files that list configurations, and what executes them."""
