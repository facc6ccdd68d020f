from rlvo_lib.vessels.segmentation import segment

__all__ = ["segment"]
