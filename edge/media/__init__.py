"""From a picture or a recording on disk to the arrays that an encoder takes: numpy, Pillow and libsndfile, no torch."""

from edge.media.audio_file import Audio, read_audio
from edge.media.image_file import read_image
from edge.media.inputs import SpeechInputs, VisionInputs
from edge.media.phi3v_images import phi3v_images
from edge.media.phi4mm_audio import phi4mm_audio
from edge.media.phi4mm_images import phi4mm_images

__all__ = [
    "Audio",
    "SpeechInputs",
    "VisionInputs",
    "phi3v_images",
    "phi4mm_audio",
    "phi4mm_images",
    "read_audio",
    "read_image",
]
