"""The workflow's stages of a merge: files in, pure functions, files out."""
