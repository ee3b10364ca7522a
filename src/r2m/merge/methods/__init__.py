"""One merging method a file: a pure function `merge(task_vectors, **options)` that returns the update."""
