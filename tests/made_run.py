"""A finished run folder made by hand from binormal scores: no scan, no training, no torch."""

import nbformat
import numpy as np
import pandas as pd

from rlvo_lib import dictionary, figures, report, results, storage, verify
from rlvo_lib.cohort import freeze_split

#: Ceilings that a simulator could have written: arm -> AUC from unlimited patients, and from one cohort.
CEILINGS = {
    "clinical": (0.64, 0.60), "ncct": (0.58, 0.54), "cta": (0.72, 0.66), "vessels": (0.68, 0.61),
    "ctp": (0.56, 0.515), "imaging": (0.73, 0.66), "all": (0.76, 0.70), "all_additive": (0.76, 0.70),
}  # fmt: skip
ARMS = {"clinical_logistic": 1.0, "ncct": 0.2, "imaging": 0.1, "concat": 0.8, "daft": 1.2}


def make_predictions(seeds=(0,), n_train=120, n_test=60, folds=4, test=True):
    """Binormal scores of each arm: an easy world in which more signal means a higher AUC."""
    rng = np.random.default_rng(5)
    y = pd.Series(
        np.tile([1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1], (n_train + n_test) // 16 + 1)[
            : n_train + n_test
        ],
        index=[f"sub-{i:04d}" for i in range(n_train + n_test)],
    )
    train, held_out = y.index[:n_train], y.index[n_train:]
    rows = []
    for arm, signal in ARMS.items():
        base = rng.normal(size=len(y)) + signal * y
        for seed in seeds:
            for fold in range(1, folds + 1):
                noisy = 1 / (1 + np.exp(1.2 - (base + 0.3 * rng.normal(size=len(y)))))
                mine = train[fold - 1 :: folds]
                parts = [("out-of-fold", mine)] + ([("test", held_out)] if test else [])
                for partition, ids in parts:
                    frame = pd.DataFrame(
                        {"participant_id": ids, "partition": partition, "arm": arm}
                    )
                    frame = frame.assign(seed=seed, fold=fold, y_true=y[ids].to_numpy())
                    rows.append(frame.assign(probability=noisy[ids].to_numpy()))
    return pd.concat(rows, ignore_index=True)


def make_ceiling():
    """What ``derivatives/ceiling.json`` of a simulated dataset holds."""
    arms = {
        name: {"infinite": infinite, "fitted": fitted, "fitted_sd": 0.02, "fitted_low": fitted - 0.04,
               "fitted_high": fitted + 0.04, "latents": ["age"]}
        for name, (infinite, fitted) in CEILINGS.items()
    }  # fmt: skip
    sizes = {"n_fitted": 481, "events_fitted": 77, "replicates": 100, "evaluated_on": 100_000}
    return {"scenario": "paper"} | sizes | {"predictor": "logistic regression", "arms": arms}


def make_run(run, study, *, n_train=48, n_test=24):
    """Write every small file, table and figure of a run of simulated patients, as the notebooks do."""
    predictions = make_predictions(n_train=n_train, n_test=n_test)
    storage.write_csv(run / "predictions.csv", predictions)
    thresholds = results.choose_thresholds(predictions)
    storage.write_csv(run / "thresholds.csv", thresholds)
    _write_cohort(run, study, predictions)
    rng = np.random.default_rng(0)
    variables = study.predictors["clinical"][:5]
    keys = [
        (f"sub-{i:04d}", "daft", 0, f, v)
        for i in range(n_train, n_train + 4)
        for f in (1, 2)
        for v in variables
    ]
    shap = pd.DataFrame(keys, columns=["participant_id", "arm", "seed", "fold", "variable"])
    shap = shap.assign(value=1.0, shap=rng.normal(size=len(shap)))
    storage.write_csv(run / "attributions" / "shap.csv", shap)
    _write_explanations(run, variables, list(shap["participant_id"].unique()), rng)
    storage.write_json(run / "ceiling.json", make_ceiling())
    _write_maps(run, n_train + 2)
    _write_notebook(run)
    settings = {
        "bootstrap_resamples": 60,
        "seed": 2025,
        "profile": "smoke",
        "data": "/home/someone/data",
    }
    given = {
        "settings": settings,
        "study": study,
        "data": "simulated",
        "dataset": {"name": "Made by hand"},
    }
    report.write_provenance(run, **given)
    made = verify.Run(run)
    made_here = [n for n in verify.BUILDERS if (run / verify.NEEDS.get(n, "run.json")).exists()]
    for name in made_here:
        caption = f"The {name} <table> & more. Second sentence."
        report.save_table(run, name, made.table(name), data="simulated", caption=caption)
    report.save_table(
        run,
        "history",
        pd.DataFrame({"epoch": [1, 2], "loss": [0.5, 0.4]}),
        data="simulated",
        caption="Loss",
    )
    tables = {name: made.table(name) for name in made_here}
    cells = results.table_cells(run / "notebooks")
    ledger = results.claims(study, tables, data="simulated", cells=cells)
    storage.write_csv(run / "claims.csv", ledger)
    roc = figures.roc_curves(tables["roc_points"], performance=tables["performance"])
    report.save_figure(
        run, "roc", roc, data="simulated", caption="ROC curves of <all> arms.",
        sources=("roc_points", "performance"),
    )  # fmt: skip
    report.write_provenance(run, **given)
    return run


_FINISHED = {}


def finished_run(tmp_path_factory, study):
    """A run with its pages, made once for all tests that only read it (copy it to change it)."""
    if study.name not in _FINISHED:
        run = make_run(tmp_path_factory.mktemp("finished") / "run", study)
        report.write_index(run)
        _FINISHED[study.name] = run
    return _FINISHED[study.name]


def _write_explanations(run, variables, people, rng):
    """Players, modalities and regions of a few patients, as notebook 5 keeps them."""
    folder = run / "attributions"
    players = pd.DataFrame({"arm": "daft", "variable": variables, "group": "Demographics"})
    players = players.assign(columns=variables, label=variables)
    storage.write_csv(folder / "players.csv", players)
    rows = [
        (p, "daft", 0, fold, "donor", coalition, float(rng.normal()) if coalition else 0.0)
        for p in people
        for fold in (1, 2)
        for coalition in ("", "ncct", "clinical", "ncct+clinical")
    ]
    columns = ["participant_id", "arm", "seed", "fold", "absent", "coalition", "logit"]
    storage.write_csv(folder / "modalities.csv", pd.DataFrame(rows, columns=columns))


def _write_maps(run, patient):
    name = f"attributions/maps/sub-{patient:04d}_occlusion.nii.gz"
    (run / "attributions" / "maps").mkdir()
    (run / name).write_bytes(b"made by hand")
    maps = pd.DataFrame({"participant_id": [f"sub-{patient:04d}"], "map": [name]})
    storage.write_csv(run / "attributions" / "maps.csv", maps)


def _write_notebook(run):
    cells = [
        nbformat.v4.new_markdown_cell("# Cohort: who <is> in it?\n\nText with `code`.", id="text"),
        nbformat.v4.new_code_cell(
            "print('<b>')", execution_count=1, id="printed",
            outputs=[nbformat.v4.new_output("stream", name="stdout", text="<script>alert(1)</script>")],
        ),
        nbformat.v4.new_code_cell("1 + 1", execution_count=2, id="drawn", outputs=[
            nbformat.v4.new_output("execute_result", {"image/png": "iVBORw0KGgo=", "text/plain": "2"}, execution_count=2),
        ]),
    ]  # fmt: skip
    saving = [
        nbformat.v4.new_code_cell(f"save('{name}', table)", execution_count=3 + k, id=f"make-{k}")
        for k, name in enumerate(("flow", "performance", "comparisons", "paper"))
    ]
    ledger = nbformat.v4.new_code_cell("results.claims(study)", execution_count=9, id="ledger")
    (run / "notebooks").mkdir()
    cells += [*saving, ledger]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), run / "notebooks" / "01_cohort.ipynb")


def _write_cohort(run, study, predictions):
    words = dictionary.load(study.dictionary_path)
    ids = sorted(predictions["participant_id"].unique())
    y = predictions.drop_duplicates("participant_id").set_index("participant_id")["y_true"][ids]
    frame = {"participant_id": ids}
    for name in (c for group in study.predictors.values() for c in group):
        field = words[name]
        low, high = int(field.low or 0), int(field.high or 10)
        values = (
            list(field.choices) if field.is_categorical else [str(v) for v in range(low, high + 1)]
        )
        frame[name] = [values[(7 * i) % len(values)] for i in range(len(ids))]
    frame["etici_final"] = np.where(y == 1, "1", "3")
    frame["final_stenosis_pct"], frame["rescue_type"] = "10", "0"
    frame["admit_year"], frame["occl_site_cta"] = "2020", "3"
    frame["access_failure"], frame["cervical_stent"] = "0", "0"
    frame["age"] = [str(50 + i % 40) for i in range(len(ids))]
    cohort = pd.DataFrame(frame).assign(
        **{study.outcome: y.astype(str).to_numpy()}, scans="ncct cta", included="1", exclusion=""
    )
    cohort.loc[3, "glucose_adm"] = "-99"
    child = cohort.iloc[[0]].assign(
        participant_id="sub-child", age="17", included="0", exclusion="adult"
    )
    cohort = pd.concat([cohort, child], ignore_index=True)
    fold = predictions.query("arm == 'daft' and partition == 'out-of-fold'")
    fold = fold.set_index("participant_id")["fold"]
    split = pd.DataFrame({"participant_id": ids})
    split["partition"] = ["train" if i in fold.index else "test" for i in ids]
    split["fold"] = [str(fold.get(i, "")) for i in ids]
    freeze_split(
        cohort, split, run, plan={"seed": 0},
        dataset={"name": "made", "simulated": True, "embedded": True},
    )  # fmt: skip
