"""3D CNN encoders: images (N, C, D, H, W) float32 to features (N, 4 nf, D', H', W').

D, H, W lie along the model tensor's x, y, z. Every encoder ends in 4 nf channels, so that the last
residual block (`rlvo_lib.fusion`, where tabular data may enter it) and all that follows are the same:

``daft-resnet``     the DAFT papers': 3³ convolution at full resolution, 2³ max-pooling, three blocks
``light``           the same with a stem of stride 2 and no pooling: an eighth of its stem's work
``monai-resnet``    MONAI's ResNet: 7³ stem of stride 2, two basic blocks on each of three levels
``monai-densenet``  MONAI's DenseNet: 7³ stem of stride 2, max-pooling, two dense blocks

`blocks` are their parts, `trunks` the networks by name, `encoder` what stands before them: the channels'
standardisation, the flags of absent channels, one trunk for all channels or one a scan.

Operations have a deterministic backward pass on CPU and GPU. Of those used here, torch 2.13 refuses
only `nn.AvgPool3d` (`torch.use_deterministic_algorithms`); `blocks.BlockMean` stands in its place.
"""

from rlvo_lib.encoders.blocks import LOCATIONS, BlockMean, ResidualBlock
from rlvo_lib.encoders.encoder import Encoder, Scans
from rlvo_lib.encoders.trunks import STRIDE, Trunk, build_trunk

__all__ = [
    "LOCATIONS",
    "STRIDE",
    "BlockMean",
    "Encoder",
    "ResidualBlock",
    "Scans",
    "Trunk",
    "build_trunk",
]
