"""The detector in use: faces of photographs and videos are found, aligned and scored."""
