"""The intracranial arteries in a CT angiogram: a mask, and a graph of their centre lines."""

from rlvo_lib.vessels.network import VesselGraph, graph
from rlvo_lib.vessels.phase import contrast_phase
from rlvo_lib.vessels.segmentation import segment

__all__ = ["VesselGraph", "contrast_phase", "graph", "segment"]
