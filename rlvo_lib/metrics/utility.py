"""Clinical utility: net benefit of acting on a probability, for a decision curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from rlvo_lib.config import InputError
from rlvo_lib.metrics.checks import Floats, as_probabilities

if TYPE_CHECKING:
    import pandas as pd


def net_benefit(y_true: ArrayLike, p: ArrayLike, thresholds: ArrayLike) -> pd.DataFrame:
    """Net benefit of flagging ``p >= threshold``, beside flagging everybody and nobody.

    Parameters
    ----------
    p : (n,) probabilities of an event.
    thresholds : risk thresholds, 0 <= t < 1; rounded to 10 digits, since 3 * 0.05 is not 0.15 and a
        patient at 0.15 would change sides.

    Returns
    -------
    DataFrame with a row a threshold, in the order given: threshold, n, events, true_positives,
    false_positives, net_benefit = TP / n - FP / n * t / (1 - t), standardised (over the prevalence,
    its largest value), treat_all, treat_none (0), interventions_avoided (net, a patient:
    (net_benefit - treat_all) / (t / (1 - t)); NaN at t = 0, where everybody is flagged).

    References
    ----------
    Vickers and Elkin, Med Decis Making 2006; Kerr et al., J Clin Oncol 2016 (standardised).

    Examples
    --------
    >>> net_benefit([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.8], [0.2, 0.5]).net_benefit.tolist()
    [0.4375, 0.25]
    """
    import pandas as pd

    y, p = as_probabilities(y_true, p)
    t = _checked_thresholds(thresholds)
    tp, fp = (_at_least(p[y == event], t) for event in (1, 0))
    n, events = y.size, int(y.sum())
    odds, prevalence = t / (1 - t), events / n
    benefit = tp / n - fp / n * odds
    everybody = prevalence - (1 - prevalence) * odds
    avoided = np.full(t.size, np.nan)
    np.divide(benefit - everybody, odds, out=avoided, where=odds > 0)
    return pd.DataFrame(
        {
            "threshold": t,
            "n": n,
            "events": events,
            "true_positives": tp,
            "false_positives": fp,
            "net_benefit": benefit,
            "standardised": benefit / prevalence,
            "treat_all": everybody,
            "treat_none": 0.0,
            "interventions_avoided": avoided,
        }
    )


def _checked_thresholds(thresholds: ArrayLike) -> Floats:
    try:
        t = np.round(np.atleast_1d(np.asarray(thresholds, dtype=np.float64)), 10)
    except (TypeError, ValueError):
        raise InputError(f"thresholds are {thresholds!r}; allowed: numbers") from None
    if t.ndim != 1 or t.size == 0:
        raise InputError(f"thresholds have shape {t.shape}; allowed: one dimension, at least one")
    wrong = t[~((t >= 0) & (t < 1))]
    if wrong.size:
        raise InputError(f"threshold {wrong[0]:g} is out of range; allowed: 0 <= threshold < 1")
    return t


def _at_least(p: Floats, t: Floats) -> np.ndarray:
    """How many of ``p`` are at or above each threshold."""
    return p.size - np.searchsorted(np.sort(p), t, side="left")
