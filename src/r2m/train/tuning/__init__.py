"""Tuning methods: which parameters of a detector are trained, and in what form."""
