"""Run stages on Ray. Only this package imports Ray; it decides where stages run, not what they compute."""
