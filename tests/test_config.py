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
        "imaging", "concat", "film", "daft", "concat2fc", "daft_offset", "voxels",
        "concepts_imaging", "concepts", "concepts_daft", "measured_logistic", "measured_boosting",
        "ctp_logistic", "ctp_boosting", "read_logistic", "read_boosting", "stacked", "late",
    ]  # fmt: skip


def test_fused_arms_see_all_channels_and_only_clinical_predictors(study):
    for name in ("concat", "film", "daft"):
        assert study.arms[name].channels == tuple(study.channels)
        assert study.arms[name].predictors == ("clinical",)
    assert study.arms["late"].of == ("imaging", "clinical_logistic")


def test_arms_of_images_have_nothing_that_a_person_read(study):
    """What a reader learns is a column of the table; only arms named for it see it there."""
    seen = {
        name for name, arm in study.arms.items()
        if set(study.columns_of(arm)) & set(study.predictors["image_read"])
    }  # fmt: skip
    assert seen == {"read_logistic", "read_boosting"}
    assert set(study.predictors["image_read"]) <= set(study.concepts)
    assert study.concepts["clot_hu"] == "clot" and study.concepts["aspects"] == "perfusion"


def test_the_softwares_columns_say_which_parameter_they_are(study):
    words = dictionary.load(study.dictionary_path)
    assert study.measured["core_ml"] == "core_rcbf30_ml" and len(study.measured) == 7
    assert all(column in words for column in study.measured)
    assert set(study.measured.values()) <= set(perfusion.NAMES)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'channels = ["ncct"]\n[arms.cta]',
            'channels = ["mri"]\n[arms.cta]',
            "channel of arm 'ncct' 'mri' is not defined",
        ),
        (
            'view = "base"',
            'view = "roof"',
            "view of reader 'siphon' 'roof' is not defined; allowed: clot",
        ),
        (
            'channels = ["cta"]\nconcepts',
            'channels = ["tmax"]\nconcepts',
            "channel of reader 'occlusion' 'tmax' is not defined; allowed: ncct, cta, vessels",
        ),
        (
            'measures = ["density"]',
            'measures = ["weight"]',
            "set of measures of reader 'clot' 'weight' is not defined; allowed: occlusion, density",
        ),
        (
            'concepts = ["siphon_calc"]',
            'concepts = ["tandem_cta"]',
            "concept of reader 'carotid' 'tandem_cta' is not defined; allowed: a column of one reader",
        ),
        (
            'channels = ["ncct", "cta", "vessels"]',
            'channels = ["mri"]',
            "channel of view 'clot' 'mri' is not defined; allowed: ncct",
        ),
        ('follow = "occlusion"', 'follow = "moon"', "follow of view 'clot' 'moon'"),
        ('follow = "occlusion"', 'follows = "occlusion"', "missing or unknown entry"),
        ("shape = [32, 24, 20]", "shape = [32, 24]", "grid of view 'clot' '[32, 24] of 1.5 mm'"),
        ("shape = [32, 24, 20]", "shape = [32, 24, 7]", "allowed: three whole numbers from 8"),
        ("spacing_mm = 1.5", "spacing_mm = 0", "grid of view 'clot' '[32, 24, 20] of 0 mm'"),
        ("offset_mm = [10.0, 0.0, 2.0]", "offset_mm = [10.0]", "centre of view 'clot'"),
        (
            'space = "head"',
            'space = "template"',
            "view 'clot' 'clot' is not defined; allowed: none in",
        ),
        (
            'measures = ["occlusion", "density", "vessels", "perfusion"]',
            'measures = ["weight"]',
            "set of measures of arm 'measured_logistic' 'weight'",
        ),
        (
            'offset = "clinical_logistic"',
            'offset = "clinical_mlp"',
            "offset of arm 'daft_offset' 'clinical_mlp' is not defined; allowed: clinical_logistic",
        ),
        (
            'offset = "clinical_logistic"',
            'teacher = "imaging"',
            "teacher of arm 'daft_offset' 'imaging' is not defined; allowed: clinical_logistic",
        ),
        (
            'of = ["imaging", "clinical_logistic"]',
            'of = ["imaging", "clinical_logistic"]\nteacher = "clinical_logistic"',
            "teacher of arm 'late' 'clinical_logistic' is not defined; allowed: none: only a network",
        ),
        (
            'kind = "concepts"\ngroup = "multimodal"',
            'kind = "concepts"\nfusion = "film"\ngroup = "multimodal"',
            "fusion of arm 'concepts' 'film' is not defined; allowed: none, daft",
        ),
        (
            'of = ["imaging", "clinical_logistic", "concepts_imaging"]',
            'of = ["imaging", "late"]',
            "arm of arm 'stacked' 'late' is not defined; allowed: clinical_logistic",
        ),
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


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('territories = "territories" ', 'territories = "lobes" ', "explain.atlas.territories 'lobes'"),
        ('volume = "volume"\nbeside', 'volume = "clinical"\nbeside', "'clinical' has 5 columns"),
        ('beside = ["clinical_territories"', 'beside = ["boosting"', "arm of explain.atlas.beside 'boosting'"),
        ('path = "derivatives/atlas', 'file = "derivatives/atlas', "missing or unknown entry 'path'"),
    ],
)  # fmt: skip
def test_a_faulty_atlas_of_a_study_is_refused(tmp_path, old, new, message):
    known = config.load_study("soop")
    text = (known.folder / "study.toml").read_text(encoding="utf-8")
    assert text.count(old) == 1
    (tmp_path / "study.toml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        config.read_study(tmp_path / "study.toml")


def test_an_atlas_names_a_column_for_each_label():
    plan = config.load_study("soop").explain_atlas
    assert len(plan.territories) == 32 and plan.territories[6] == "territory_07_ml"
    assert plan.volume == "lesion_ml"
    assert plan.beside == ("clinical_territories", "clinical_volume", "daft_untaught")
    assert config.load_study("rlvo").explain_atlas is None
