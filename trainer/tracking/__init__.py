"""What trackers (W&B, TensorBoard, trackio, MLflow, ...) are given: names of metrics, charts, names of runs."""
