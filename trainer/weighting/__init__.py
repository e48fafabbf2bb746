"""From a divergence to weights of the advantages: functions, controls, metrics, descriptions."""
