"""Names of metrics, charts and runs for trackers: W&B, TensorBoard, trackio, MLflow, ..."""
