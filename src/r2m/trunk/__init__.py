"""Model inputs: cached trunk activations, or crops."""
