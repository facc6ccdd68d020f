import dataclasses

import pytest

from rlvo_lib import config, dictionary, perfusion
from rlvo_lib.config import InputError, load_settings, load_study


def test_profiles_differ_only_where_they_say():
    smoke, demo = load_settings("smoke", workers=1), load_settings("demo", workers=1)
    changed = {
        f.name
        for f in dataclasses.fields(config.Settings)
        if getattr(smoke, f.name) != getattr(demo, f.name)
    }
    assert changed <= {"profile", "out", *config.PROFILES["smoke"]}
    assert demo.patients == 599


def test_the_run_folder_is_named_after_the_dataset_or_the_profile(tmp_path):
    assert load_settings("demo").out.name == "latest"
    assert load_settings("demo", data=tmp_path).out.name == tmp_path.name
    assert load_settings("demo", data=tmp_path, out="x").out.name == "x"


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_settings("smoke").seed = 1


def test_none_keeps_the_profile_value():
    assert load_settings("smoke", epochs_max=None).epochs_max == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (dict(profile="quick"), "profile 'quick' is not known; allowed: smoke, demo, full"),
        (dict(profile="smoke", epoch_max=3), "setting 'epoch_max' is not known"),
        (
            dict(profile="smoke", workers=0),
            "setting 'workers' is 0; allowed: a whole number, above 0",
        ),
        (dict(profile="smoke", batch_size="a"), "setting 'batch_size' is 'a'"),
        (dict(profile="smoke", device="tpu"), "allowed: auto, cpu, cuda"),
        (dict(profile="smoke", grid_shape=(8, 8, 8)), "numbers of at least 16"),
        (dict(profile="smoke", study="nope"), "study 'nope' does not exist; allowed: rlvo"),
        (dict(profile="smoke", data="no/such/folder"), "does not exist"),
        (dict(profile="smoke", training_seeds=()), "at least one whole number"),
        (dict(profile="smoke", grid_shape=20), "three whole numbers of at least 16"),
        (
            dict(profile="smoke", epochs_max=2.5),
            "setting 'epochs_max' is 2.5; allowed: a whole number",
        ),
        (dict(profile="smoke", workers=True), "setting 'workers' is True"),
        (dict(profile="smoke", seed="x"), "setting 'seed' is 'x'; allowed: a whole number"),
        (dict(profile="smoke", weight_decay=-1), "allowed: a number, 0 or more"),
        (dict(profile="smoke", encoder="vgg"), "allowed: light, daft-resnet"),
        (
            dict(profile="smoke", allow_sensitivity_predictors=1),
            "setting 'allow_sensitivity_predictors' is 1; allowed: True or False",
        ),
        (dict(profile="smoke", repeats=3), "only for a study without a test part"),
        (
            dict(profile="smoke", outcome_definition="etici_3"),
            "outcome definition 'etici_3' is not known; allowed: main, stenosis_only",
        ),
    ],
)
def test_bad_settings_name_what_is_allowed(call, message):
    with pytest.raises(InputError, match=message.split(";")[0].replace("(", r"\(")) as caught:
        load_settings(**call)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_arm_of_the_design_is_in_the_ladder(study):
    assert list(study.arms) == [
        "clinical_logistic", "clinical_boosting", "clinical_mlp", "ncct", "cta", "vessels", "ctp",
        "imaging", "concat", "film", "daft", "late",
    ]  # fmt: skip


def test_fused_arms_see_all_channels_and_only_clinical_predictors(study):
    for name in ("concat", "film", "daft"):
        assert study.arms[name].channels == tuple(study.channels)
        assert study.arms[name].predictors == ("clinical",)
    assert study.arms["late"].of == ("imaging", "clinical_logistic")


def test_the_softwares_columns_say_which_parameter_they_are(study):
    words = dictionary.load(study.dictionary_path)
    assert study.measured["core_ml"] == "core_rcbf30_ml" and len(study.measured) == 7
    assert all(column in words for column in study.measured)
    assert set(study.measured.values()) <= set(perfusion.NAMES)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('channels = ["ncct"]', 'channels = ["mri"]', "channel of arm 'ncct' 'mri' is not defined"),
        (
            'hir = "hir_tmax10_tmax6"',
            'hir = "hir_tmax10"',
            "parameter measured for column 'hir' 'hir_tmax10' is not defined; allowed: core_rcbf30_ml",
        ),
        ('kind = "mean"', 'kind = "magic"', "kind of arm 'late' 'magic' is not defined"),
        ('op = ">"', 'op = "~"', "op of rule 'stenosis' '~' is not defined"),
        (
            'holdout = "random"',
            'holdout = "moon"',
            "holdout 'moon' is not defined; allowed: random",
        ),
        (
            "folds = 4",
            "folds = 1",
            "folds of validation '1' is not defined; allowed: a whole number",
        ),
        ("folds = 4", 'folds = "4"', "folds of validation '4'"),
        ("test_fraction = 0.197", "test_fraction = 2.0", "test_fraction of validation '2.0'"),
        ("test_fraction = 0.197", 'test_fraction = "x"', "allowed: a share between 0 and 1"),
        ("folds = 4", "folds = 4\nrepeats = 3", "design with repeats 'holdout'"),
        (
            'kind = "ct"',
            'kind = "xray"',
            "kind of scan 'ncct' 'xray' is not defined; allowed: ct, map",
        ),
        ('design = "holdout"', "", "design of validation '' is not defined; allowed: holdout"),
        ('background = "ncct"', 'background = "mri"', "background of maps 'mri'"),
        ('value = ["ncct", "cta"]', 'value = ["mri"]', "scan of rule 'imaging' 'mri'"),
        ('high = 80.0, unit = "HU"', 'high = -1.0, unit = "HU"', "window of channel 'ncct'"),
        ('"{0}/ct/{0}_cta.nii.gz"', '"cta.nii.gz"', "a path with {0} for the participant"),
        ('space = "head"', 'space = "head"\ncentre_mm = [0, 0]', "allowed: three numbers"),
        ('space = "head"', 'space = "head"\ncentre_mm = "mid"', "study.toml of study"),
        ('space = "head"', 'space = "moon"', "space of the grid 'moon'"),
        ('severity = "warning"', 'severity = "grave"', "severity of 'ivt-anticoagulated' 'grave'"),
        ('op = "code"', 'op = "any-scan"', "op of rule 'first-pass-without-pass' 'any-scan'"),
        ('flip_to_side = "left"', 'flip_to_side = "up"', "flip_to_side 'up' is not defined"),
        ('name = "rlvo"', "", "missing or unknown entry 'name'"),
        ('name = "rlvo"', 'name = "rlvo', "study.toml of study"),
    ],
)
def test_a_faulty_study_file_is_refused_by_name(study, tmp_path, monkeypatch, old, new, message):
    text = study.text.replace(old, new, 1)
    (tmp_path / "studies" / "rlvo").mkdir(parents=True)
    (tmp_path / "studies" / "rlvo" / "study.toml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(config.study, "project_root", lambda: tmp_path)
    with pytest.raises(InputError) as caught:
        load_study("rlvo")
    assert message in str(caught.value)
