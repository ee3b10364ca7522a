"""Tables of experiments, one module each, from what the experiment computed."""
