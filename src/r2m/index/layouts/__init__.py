"""Layouts of data sets, one a module; a module declares its layout as `LAYOUT`."""
