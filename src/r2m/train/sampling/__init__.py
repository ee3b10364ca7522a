"""Which images make up the batches of a training, and how many batches an epoch has."""
