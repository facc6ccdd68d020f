"""Disease of the arterial wall that a scan shows: tandem lesion, stenoses, calcium.

Centre lines in head mm, radii in mm. What lies behind an occlusion is not here: it is never drawn.
"""

from __future__ import annotations

import numpy as np

from rlvo_lib.simulate.arteries import Tube


def tandem(tree: dict[str, Tube], patient: dict, rng: np.random.Generator) -> None:
    """A cervical carotid lesion: a slender, weakly filled carotid on its way through the skull."""
    tube = tree["ICA_R" if patient["side"] == 1 else "ICA_L"]
    calibre, flow = rng.uniform(0.45, 0.7), rng.uniform(0.3, 0.75)
    near = np.clip(1.3 - tube.arc / 45.0, 0, 1)
    tube.radius = tube.radius * (1 - (1 - calibre) * near)
    tube.fill = tube.fill * (1 - (1 - flow) * np.clip(near + 0.35, 0, 1))


def other_stenoses(tree: dict[str, Tube], patient: dict, rng: np.random.Generator) -> list[dict]:
    """One or two focal stenoses on vessels that the occlusion does not touch."""
    side = "R" if patient["side"] == 1 else "L"
    far = "L" if side == "R" else "R"
    names = [f"M1_{far}", f"ICA_{far}", "BA", f"P2_{side}", f"P2_{far}", f"A1_{far}"]
    chosen = rng.permutation(len(names))[: 1 + (rng.random() < 0.35)]
    found = []
    for index in chosen:
        tube = tree[names[index]]
        share = rng.uniform(0.87, 0.93) if "ICA" in tube.name else rng.uniform(0.25, 0.6)
        degree, centre = rng.uniform(0.5, 0.8), share * tube.length
        narrowing = 1 - degree * np.exp(-(((tube.arc - centre) / 2.6) ** 2))
        tube.radius = tube.radius * narrowing
        place = tube.points[np.searchsorted(tube.arc, centre)]
        found.append({"vessel": tube.name, "degree": float(degree), "at": place.tolist()})
    return found


def siphon_plaques(tree: dict[str, Tube], patient: dict, rng: np.random.Generator) -> np.ndarray:
    """Calcified plaques of both siphons, rows of (x, y, z head mm, radius mm, HU); (0, 5) if none."""
    rows = []
    for side in ("L", "R"):
        own = (side == "R") == (patient["side"] == 1)
        load = patient["siphon_calcium"] + (0.0 if own else rng.normal(0, 0.5))
        amount = np.clip(load + 0.65, 0, 4)  # none below the cut of grade 0, rising with the latent
        tube = tree[f"ICA_{side}"]
        for _ in range(int(round(3.2 * amount))):
            here = int(len(tube.points) * rng.uniform(0.55, 0.93))
            direction = rng.normal(0, 1, 3)
            direction /= np.sqrt((direction**2).sum())
            spot = tube.points[here] + direction * tube.calibre[here]
            size = np.clip(0.75 + 0.22 * amount + rng.normal(0, 0.15), 0.5, 2.2)
            rows.append([*spot, size, rng.uniform(450, 1000)])
    return np.array(rows).reshape(-1, 5)
