"""Placing modules: `equip` for a model YAML, `insert` for any torch model, and the weights that follow."""
