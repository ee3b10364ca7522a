"""The built-in forgeries: functions of an aligned face, each registered by its name."""
