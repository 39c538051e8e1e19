"""The public names of the project, such as `chopmix.transcribe(run, "talk.mp3")`."""

NAMES = {"transcribing": ("transcribe",), "transcription": ("Transcribing",)}
"""The public names by the module that defines them."""
