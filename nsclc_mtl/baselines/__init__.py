"""The floor: linear models that every trained model has to beat, on the same patients, folds and inputs."""

from nsclc_mtl.baselines.floor import VOLUME, fit_floors, floor_tables

__all__ = ["VOLUME", "fit_floors", "floor_tables"]
