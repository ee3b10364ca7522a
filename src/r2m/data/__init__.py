"""Reals: from a package or a folder to aligned, encoded faces with identities and splits."""
