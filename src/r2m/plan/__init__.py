"""The plan of a run: what `params.yaml` asks for as stages, jobs, their inputs and their files."""
