"""A local page on which photographs and videos are scored: `r2m demo`."""
