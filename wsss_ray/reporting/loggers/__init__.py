"""Loggers, which send the figures of a run to TensorBoard, MLflow, Weights & Biases or a tracker of your own while it runs."""

from wsss_ray.reporting.loggers.logger import Logger
from wsss_ray.reporting.loggers.mlflow import Mlflow
from wsss_ray.reporting.loggers.tensorboard import Tensorboard
from wsss_ray.reporting.loggers.wandb import Wandb

__all__ = ["Logger", "Mlflow", "Tensorboard", "Wandb"]
