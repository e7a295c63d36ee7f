"""Text to vectors: one file per way of doing it."""

import sys

# OpenVINO reports every import of itself to Google Analytics when it can import this package, and falls
# back on a stub of its own when it cannot. A service that holds other people's documents calls nobody.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
