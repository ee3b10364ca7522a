"""Fine-tuning of specialists and of the joint detector, and the linear probe."""
