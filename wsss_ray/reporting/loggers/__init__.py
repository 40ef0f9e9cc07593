"""Where the figures of a run go while it runs: TensorBoard, MLflow, Weights & Biases, or a logger of a user's own."""

from wsss_ray.reporting.loggers.logger import Logger
from wsss_ray.reporting.loggers.mlflow import Mlflow
from wsss_ray.reporting.loggers.tensorboard import Tensorboard
from wsss_ray.reporting.loggers.wandb import Wandb

__all__ = ["Logger", "Mlflow", "Tensorboard", "Wandb"]
