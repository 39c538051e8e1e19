"""The public names of the project: `chopmix.transcribe(run, "talk.mp3")`."""

NAMES = {"transcribing": ("transcribe",), "transcription": ("Transcribing",)}
"""By module."""
