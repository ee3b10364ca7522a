"""Faces of videos: frames spread over a video, decoded by their numbers, faces tracked, aligned and kept."""
