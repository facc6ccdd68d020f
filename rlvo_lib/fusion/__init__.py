"""Fusion of images and tabular data as one family.

All members share the encoder, the last residual block and the linear head; they differ in how the
tabular vector t (P) meets the features (Pölsterl et al., MICCAI 2021; Wolf et al., NeuroImage 2022).
GAP is global average pooling of the last block's features, F a feature map of C channels in that block.

``none``             image only: FC(GAP)
``concat1fc``        FC([GAP; t])
``concat2fc``        FC(ReLU(FC_b([GAP; t])))
``1fc-concat-1fc``   FC([GAP; ReLU(FC_b(t))])
``interactive``      the input of every block k is multiplied channelwise by a_k(t) (Duanmu et al., MICCAI 2020)
``film``             F'_c = α_c F_c + β_c, with [α; β] = W₂ ReLU(W₁ t) (Perez et al., AAAI 2018)
``daft``             the same with [GAP(F); t] in the place of t

b = int((4·nf + P)/7) is the width of the auxiliary networks, whose W have no biases, while FC have. FiLM and DAFT
stand at one of `rlvo_lib.encoders.LOCATIONS` of the last block; the published scripts use 3.
`conditioning` holds what turns t into coefficients, `network` the networks and `build_model`.
"""

from rlvo_lib.fusion.conditioning import ACTIVATIONS, AffineModulation, BlockScales, pooled
from rlvo_lib.fusion.network import FUSIONS, FusionNet, TabularNet, build_model

__all__ = [
    "ACTIVATIONS",
    "FUSIONS",
    "AffineModulation",
    "BlockScales",
    "FusionNet",
    "TabularNet",
    "build_model",
    "pooled",
]
