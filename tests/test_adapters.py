"""SOOP as a dataset folder: miniature masks and atlas with known answers, and the real ones where they are.

The miniature grid has 8 x 10 x 6 voxels of 2 mm (8 uL), axes LAS as the source's: low first indices are on
the right.
"""

import json
import tarfile
import time

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import realdata
from test_cli import rlvo

from rlvo_lib import adapters, config, dataset, dictionary, images, storage, validation
from rlvo_lib.adapters import lesions, soop
from rlvo_lib.config import InputError

SHAPE = (8, 10, 6)
AFFINE = np.array([[-2.0, 0, 0, 7], [0, 2, 0, -9], [0, 0, 2, -5], [0, 0, 0, 1]])
VOXEL_ML = 0.008
ROWS = """\
sub-1 F 63 w 1 0 20.55 3 2 5: Cryptogenic Stroke
sub-2 M 89+ b 1 1 n/a 21 6 1: Large-artery atherosclerosis (e.g., carotid)
sub-3 n/a n/a n/a n/a n/a n/a n/a n/a n/a
sub-4 F 45 w 1 0 30.1 0 n/a 3: Small-vessel disease (<1.5 cm)"""
HEADER = "participant_id sex age race acuteischaemicstroke priorstroke bmi nihss gs_rankin_6isdeath etiology"


def _atlas():
    """Sixteen pairs of territories: three (y, z) columns a pair, odd labels on the left; the rest is 0."""
    pair = (np.arange(60) // 3).reshape(1, 10, 6)
    left = (np.arange(8) >= 4).reshape(8, 1, 1)
    return np.where(pair < 16, 2 * pair + np.where(left, 1, 2), 0).astype(np.int16)


def _mask(*voxels, value=1, dtype=np.uint8):
    mask = np.zeros(SHAPE, dtype)
    for voxel in voxels:
        mask[voxel] = value
    return mask


def _save(path, array, affine=AFFINE):
    """As another program writes it: nibabel's own header, a description in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.header["descrip"] = b"normalised"
    nib.save(image, path)


def _write_rows(path, text=ROWS, header=HEADER):
    lines = ["\t".join(header.split())]
    for row in text.splitlines():
        lines.append("\t".join(row.split(" ", len(header.split()) - 1)))
    path.write_text("\r\n".join(lines) + "\r\n", newline="")  # as the source ends its lines


@pytest.fixture
def source(tmp_path):
    """Four rows, masks of sub-1, sub-2 and sub-4, atlas and description: what is downloaded."""
    folder = tmp_path / "source"
    masks = folder / "masks"
    _save(masks / "sub-1_lesion.nii.gz", _mask(np.s_[6:, 0, 0:3], np.s_[5, 9, :]))
    _save(masks / "sub-2_lesion.nii.gz", _mask(np.s_[:, 0:2, :]))
    _save(masks / "sub-4_lesion.nii.gz", _mask(np.s_[0:2, 3:9, 0:3]))
    _write_rows(folder / "participants.tsv")
    _save(folder / soop.ATLAS, _atlas())
    storage.write_json(
        folder / "dataset_description.json",
        {"Name": "SOOP, small", "BIDSVersion": "1.6.0", "License": "CC0", "Authors": ["A", "B"],
         "DatasetDOI": "doi:1", "Acknowledgements": "a"},
    )  # fmt: skip
    return folder


def _adapt(source, **options):
    out = source.parent / "dataset"
    return soop.adapt(source / "masks", source / "participants.tsv", out, **options), out


def _table(out):
    return pd.read_csv(out / "participants.tsv", sep="\t", dtype=str, index_col="participant_id")


def _flagged(report, what):
    return dict(report[report["what"] == what].set_index("participant_id")["value"])


@pytest.fixture(scope="module")
def study():
    return config.load_study("soop")


@pytest.fixture(scope="module")
def words(study):
    return dictionary.load(study.dictionary_path)


# --------------------------------------------------------------------------------------- the dataset


def test_the_table_has_the_dictionarys_columns_and_codes(source, words):
    _, out = _adapt(source)
    table = _table(out)
    stored = [name for name in words.fields if name != "poor_outcome"]
    assert ["participant_id", *table.columns] == stored
    clinical = [name for name in stored[1:] if not name.endswith("_ml")]
    assert table.loc["sub-1", clinical].tolist() == [
        "63",
        "0",
        "w",
        "1",
        "0",
        "20.55",
        "3",
        "5",
        "2",
    ]
    assert table.loc["sub-2", clinical].tolist() == [
        "89",
        "1",
        "b",
        "1",
        "1",
        "-99",
        "21",
        "1",
        "6",
    ]
    assert set(table.loc["sub-3"]) == {"-99"}
    assert table.loc["sub-4", "mrs_discharge"] == "-99"


def test_volumes_are_those_of_the_voxels(source):
    _, out = _adapt(source)
    row = _table(out).loc["sub-1"].filter(like="_ml").astype(float)
    # columns 0 to 2 are pair 0: 2 x 3 voxels on the left; (5, 9, 0:6) are columns 54 to 59, in no pair
    assert row["lesion_ml"] == pytest.approx(12 * VOXEL_ML)
    assert row["territory_01_ml"] == pytest.approx(6 * VOXEL_ML)
    assert row.filter(like="territory").sum() == pytest.approx(6 * VOXEL_ML)
    whole = _table(out).loc["sub-2"].filter(like="_ml").astype(float)
    # (:, 0:2, :) are columns 0 to 11: the whole of pairs 0 to 3, 3 columns of 4 voxels a side
    expected = [12 * VOXEL_ML] * 8 + [0] * 24
    np.testing.assert_allclose(whole.filter(like="territory"), expected, atol=1e-9)


def test_left_stays_left(source):
    """The lesion of sub-1 is on the left: in the written mask's world, and in the left territories."""
    _, out = _adapt(source)
    written = nib.load(out / "sub-1" / "anat" / "sub-1_lesion.nii.gz")
    assert nib.aff2axcodes(written.affine) == ("L", "A", "S")
    places = nib.affines.apply_affine(written.affine, np.argwhere(np.asarray(written.dataobj)))
    assert len(places) == 12 and (places[:, 0] < 0).all()
    row = _table(out).loc["sub-1"].astype(str)
    assert row["territory_01_ml"] == "0.048" and row["territory_02_ml"] == "0.000"
    right = _table(out).loc["sub-4"].filter(like="territory").astype(float).to_numpy()
    assert right[0::2].sum() == 0 and right[1::2].sum() > 0


def test_the_same_world_with_axes_the_other_way_gives_the_same_volumes(source):
    _, out = _adapt(source)
    before = _table(out)
    for path in [*source.glob("masks/*.nii.gz"), source / soop.ATLAS]:
        image = nib.load(path)
        nib.save(nib.as_closest_canonical(image), path)
    soop.adapt(source / "masks", source / "participants.tsv", source.parent / "ras")
    pd.testing.assert_frame_equal(_table(source.parent / "ras"), before)
    turned = nib.load(source.parent / "ras" / "sub-1" / "anat" / "sub-1_lesion.nii.gz")
    assert nib.aff2axcodes(turned.affine) == ("R", "A", "S")


def test_clean_masks_are_copied_and_others_written_as_0_and_1(source):
    _save(source / "masks" / "sub-2_lesion.nii.gz", _mask(np.s_[0:3], value=255))
    _save(source / "masks" / "sub-4_lesion.nii.gz", _mask(np.s_[1:3], dtype=np.int16))
    report, out = _adapt(source)
    path = "sub-1/anat/sub-1_lesion.nii.gz"
    assert (out / path).read_bytes() == (source / "masks" / "sub-1_lesion.nii.gz").read_bytes()
    for name in ("sub-2", "sub-4"):
        before = nib.load(source / "masks" / f"{name}_lesion.nii.gz")
        after = nib.load(out / name / "anat" / f"{name}_lesion.nii.gz")
        assert after.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(np.asarray(after.dataobj), np.asarray(before.dataobj) > 0)
        np.testing.assert_array_equal(after.affine, before.affine)
    assert _flagged(report, "coded other than 1") == {"sub-2": "255"}
    assert _flagged(report, "another data type") == {"sub-4": "int16"}


def test_scaled_and_four_dimensional_masks_are_written_plain(source):
    image = nib.Nifti1Image(_mask(np.s_[0:3], value=2), AFFINE)
    image.header.set_slope_inter(0.5, 0)
    nib.save(image, source / "masks" / "sub-2_lesion.nii.gz")
    _save(source / "masks" / "sub-4_lesion.nii.gz", _mask(np.s_[1:3])[..., None])
    report, out = _adapt(source)
    for name, n in (("sub-2", 3 * 60), ("sub-4", 2 * 60)):
        after = nib.load(out / name / "anat" / f"{name}_lesion.nii.gz")
        assert after.shape == SHAPE and np.unique(after.dataobj).tolist() == [0, 1]
        assert float(_table(out).loc[name, "lesion_ml"]) == pytest.approx(n * VOXEL_ML)
    assert report[report["what"] == "coded other than 1"].empty  # 1 once it is scaled


def test_the_atlas_is_kept_as_it_came_and_comes_to_a_dataset_made_without(source):
    _, out = _adapt(source)
    kept = out / soop.ATLAS_COPY
    assert kept.read_bytes() == (source / soop.ATLAS).read_bytes()
    kept.unlink()
    _adapt(source)
    assert kept.read_bytes() == (source / soop.ATLAS).read_bytes()
    _save(source / soop.ATLAS, _atlas()[:, ::-1])
    other = (source / soop.ATLAS).read_bytes()
    with pytest.raises(InputError, match="holds another dataset"):
        _adapt(source)
    assert kept.read_bytes() != other
    _adapt(source, replace=True)
    assert kept.read_bytes() == other


def test_the_description_is_the_sources(source):
    _, out = _adapt(source)
    description = json.loads((out / "dataset_description.json").read_text())
    assert description == {
        "Name": "SOOP, small", "BIDSVersion": "1.6.0", "License": "CC0", "Authors": ["A", "B"],
        "DatasetDOI": "doi:1", "simulated": False,
        "GeneratedBy": [{"Name": "rlvo adapt soop", "Version": adapters.soop.__version__}],
    }  # fmt: skip
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {
        "dataset_description.json", "participants.tsv", soop.REPORT, soop.ATLAS_COPY,
        *(f"sub-{n}/anat/sub-{n}_lesion.nii.gz" for n in (1, 2, 4)),
    }  # fmt: skip
    (source / "dataset_description.json").unlink()
    _adapt(source)
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["Name"].startswith("Stroke Outcome") and "License" not in description


def test_the_dataset_loads_and_has_no_error(source, study, words):
    _save(source / "masks" / "sub-4_lesion.nii.gz", _mask())
    _, out = _adapt(source)
    data = dataset.load_dataset(out, study, words)
    assert not data.simulated and data.table.loc["sub-4", "lesion_ml"] == 0
    assert data.scan("sub-2", "lesion").is_file() and data.scan("sub-3", "lesion") is None
    faults = validation.validate(out, study, words, read_scans=True)
    errors = faults[faults["severity"] == "error"]
    assert errors["where"].tolist() == [study.outcome], "two patients are too few, all else is well"


def test_masks_are_found_as_published_and_one_level_down(source):
    _, out = _adapt(source)
    before = _table(out)
    masks = source / "masks"
    (masks / "sub-1_lesion.nii.gz").rename(masks / "bwsrsub-1_lesion.nii.gz")
    (masks / "sub-2").mkdir()
    (masks / "sub-2_lesion.nii.gz").rename(masks / "sub-2" / "sub-2_desc-lesion_mask.nii.gz")
    (masks / "sub-3_FLAIR.nii.gz").write_bytes(b"no mask, never opened")
    (source / soop.ATLAS).rename(masks / soop.ATLAS)
    _adapt(source)  # the same dataset, so nothing is refused
    pd.testing.assert_frame_equal(_table(out), before)


# ---------------------------------------------------------------------------------------- the report


def test_everything_unusual_is_reported_and_kept(source):
    big = np.diag([-20.0, 20, 20, 1])
    big[:3, 3] = [70, -90, -50]
    _save(source / soop.ATLAS, _atlas(), big)
    masks = source / "masks"
    _save(masks / "sub-1_lesion.nii.gz", _mask(np.s_[6:, 0, 0:3], np.s_[5, 9, :]), big)
    _save(masks / "sub-2_lesion.nii.gz", _mask(np.s_[:, 0:2, :]), big)  # 96 x 8 mL
    _save(masks / "sub-4_lesion.nii.gz", _mask(), big)
    _save(masks / "sub-77_lesion.nii.gz", _mask())
    report, out = _adapt(source)
    assert report.columns.tolist() == ["participant_id", "what", "value", "detail"]
    assert [tuple(line) for line in report.to_numpy()] == [
        ("sub-3", "row without a mask", "", "kept, its volumes are -99"),
        ("sub-77", "mask without a row", "sub-77_lesion.nii.gz", "not written"),
        ("sub-2", "age 89 or more", "89+", "written as 89"),
        ("sub-2", "over 400 mL", "768.000", "mL"),
        ("sub-4", "all zero", "0.000", "mL"),
        ("sub-1", "outside the atlas", "0.5000", "6 of 12 lesion voxels"),
    ]
    pd.testing.assert_frame_equal(
        storage.read_csv(
            out / soop.REPORT, dtype=dict.fromkeys(report, str), keep_default_na=False
        ),
        report,
    )
    assert _table(out).index.tolist() == ["sub-1", "sub-2", "sub-3", "sub-4"]
    shown = soop.show(report, "out")
    assert "over 400 mL: 1 (sub-2 768.000)" in shown
    assert "outside the atlas: 1 (median share of the lesion 0.500, largest 0.500)" in shown


def test_a_lesion_under_0_1_ml_and_a_column_that_is_not_used(source):
    _write_rows(
        source / "participants.tsv",
        "\n".join(row.replace(" ", " 1.5 ", 1) for row in ROWS.splitlines()),
        HEADER.replace(" ", " lesion_size_cc ", 1),
    )
    report, _ = _adapt(source)
    assert _flagged(report, "under 0.1 mL") == {"sub-1": "0.096"}
    assert report[report["what"] == "column not used"]["value"].tolist() == ["lesion_size_cc"]


# ------------------------------------------------------------------------------------------ bad input


def _other_table(source):
    _write_rows(source / "participants.tsv", "sub-1 63", "participant_id age")


def _commas(source):
    path = source / "participants.tsv"
    path.write_text(path.read_text().replace("\t", ","))


def _doubled(source):
    _write_rows(source / "participants.tsv", ROWS + "\n" + ROWS.splitlines()[1])


def _no_rows(source):
    _write_rows(source / "participants.tsv", "")


def _long_rows(source):
    path = source / "participants.tsv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *(row + "\tmore" for row in rows)]))


def _two_grids(source):
    affine = AFFINE.copy()
    affine[0, 3] = 9
    _save(source / "masks" / "sub-2_lesion.nii.gz", _mask(np.s_[:, 0]), affine)


def _mirrored_mask(source):
    _save(
        source / "masks" / "sub-2_lesion.nii.gz",
        _mask(np.s_[:, 0]),
        np.diag([-1, 1, 1, 1]) @ AFFINE,
    )


def _atlas_elsewhere(source):
    _save(source / soop.ATLAS, _atlas(), AFFINE + np.eye(4)[:, [3, 0, 1, 2]] * 0.5)


def _atlas_of_another_size(source):
    _save(source / soop.ATLAS, np.concatenate([_atlas()] * 2, axis=2))


def _mirrored_atlas(source):
    flip = np.diag([-1.0, 1, 1, 1])
    for path in [*source.glob("masks/*.nii.gz"), source / soop.ATLAS]:
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), flip @ image.affine), path)


def _atlas_of_other_labels(source):
    _save(source / soop.ATLAS, np.minimum(_atlas(), 10))


def _no_atlas(source):
    (source / soop.ATLAS).unlink()


def _probabilities(source):
    mask = _mask(np.s_[0:2], value=0.5, dtype=np.float32)
    mask[3] = 1
    _save(source / "masks" / "sub-4_lesion.nii.gz", mask)


def _negative(source):
    _save(source / "masks" / "sub-4_lesion.nii.gz", _mask(np.s_[0:2], value=-1, dtype=np.int16))


def _four_dimensions(source):
    _save(source / "masks" / "sub-4_lesion.nii.gz", np.stack([_mask(), _mask()], axis=3))


def _cut_off(source):
    path = source / "masks" / "sub-4_lesion.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])


def _no_nifti(source):
    (source / "masks" / "sub-4_lesion.nii.gz").write_text("a mask")


def _no_masks(source):
    for path in source.glob("masks/*"):
        path.unlink()


def _masks_of_others(source):
    for path in source.glob("masks/*"):
        path.rename(path.with_name("sub-9" + path.name[4:]))


def _masks_as_archive(source):
    for path in source.glob("masks/*"):
        path.unlink()
    (source / "masks").rmdir()
    (source / "masks").write_text("")


def _two_masks_of_one(source):
    _save(source / "masks" / "more" / "sub-1_desc-lesion.nii.gz", _mask())


def _bad_description(source):
    (source / "dataset_description.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_other_table, r"participants.tsv: has no column 'sex', 'race', .*, so it is another dataset's"),
        (_commas, r"participants.tsv: has no column 'participant_id'.*tab-separated"),
        (_doubled, r"participants.tsv: patient 'sub-2' stands in rows 3 and 6 \(1 patients"),
        (_no_rows, r"participants.tsv: the table has no patients"),
        (_long_rows, r"participants.tsv: the table has rows with more fields than the header"),
        (_two_grids, r"sub-2_lesion.nii.gz: its grid \(8 x 10 x 6 .*LAS, first voxel at 9, -9, -5 mm\) "
                     r"is not that of sub-1_lesion.nii.gz \(.*at 7, -9, -5 mm\)"),
        (_mirrored_mask, r"sub-2_lesion.nii.gz: its grid \(.*axes RAS.*axes LAS.*all masks on one grid"),
        (_atlas_elsewhere, r"ArterialAtlas136.nii.gz: its grid \(.*\) is not that of the masks \(8 x"),
        (_atlas_of_another_size, r"ArterialAtlas136.nii.gz: its grid \(8 x 10 x 12 .*is not that of the"),
        (_mirrored_atlas, r"ArterialAtlas136.nii.gz: label 1 \(left\) has its middle at x = 4 mm and label"),
        (_atlas_of_other_labels, r"ArterialAtlas136.nii.gz: has 11 labels from 0 to 10; allowed"),
        (_no_atlas, r"lies neither beside .*--atlas FILE.*StrokeOutcomeOptimizationProjectDemo"),
        (_probabilities, r"sub-4_lesion.nii.gz: is no mask, it holds 0.5, 1 beside 0; allowed: 0 and one"),
        (_negative, r"sub-4_lesion.nii.gz: is no mask, it holds -1 beside 0"),
        (_four_dimensions, r"sub-4_lesion.nii.gz: has 4 dimensions"),
        (_cut_off, r"sub-4_lesion.nii.gz: is damaged"),
        (_no_nifti, r"sub-4_lesion.nii.gz: is not gzip-compressed"),
        (_no_masks, r"masks: holds no lesion mask; allowed: files like sub-3_lesion.nii.gz"),
        (_masks_of_others, r"masks: none of its 3 masks belongs to a row.*e.g. sub-1_lesion.nii.gz"),
        (_masks_as_archive, r"masks: is a file; allowed: a folder \(unpack an archive first\)"),
        (_two_masks_of_one, r"patient 'sub-1' has two masks, more/sub-1_desc-lesion.nii.gz and sub-1_l"),
        (_bad_description, r"dataset_description.json: not valid JSON"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line_and_nothing_is_written(source, spoil, message):
    spoil(source)
    with pytest.raises(InputError, match=message) as raised:
        _adapt(source)
    assert not (source.parent / "dataset").exists()
    assert len(str(raised.value).splitlines()) == 1


def test_all_values_that_are_not_the_sources_are_named_at_once(source):
    bad = ROWS.replace("sub-1 F 63 w 1", "sub-1 f 95 x 2").replace("20.55 3 2 5", "20,55 43 7 9")
    bad = bad.replace("sub-4 F 45", "sub_4 f 45.5").replace("n/a 3: Small", "NA 3 Small")
    _write_rows(source / "participants.tsv", bad)
    with pytest.raises(
        soop.ValuesError, match=r"row 5, column 'participant_id': 'sub_4'"
    ) as raised:
        _adapt(source)
    problems = raised.value.problems
    assert problems.columns.tolist() == ["row", "source", "column", "value", "allowed"]
    assert {(row, column, value) for row, column, value in problems[["row", "column", "value"]].to_numpy()} == {
        (5, "participant_id", "sub_4"), (2, "sex", "f"), (5, "sex", "f"), (2, "age", "95"),
        (5, "age", "45.5"), (2, "race", "x"), (2, "acute_stroke", "2"), (2, "bmi", "20,55"),
        (2, "nihss", "43"), (2, "mrs_discharge", "7"), (5, "mrs_discharge", "NA"),
        (2, "etiology", "9: Cryptogenic Stroke"), (5, "etiology", "3 Small-vessel disease (<1.5 cm)"),
    }  # fmt: skip
    assert problems["allowed"].str.endswith("n/a").sum() == 12
    assert not (source.parent / "dataset").exists()


def test_an_empty_cell_is_not_taken_for_a_missing_value(source):
    path = source / "participants.tsv"
    path.write_text(path.read_text().replace("\t20.55\t", "\t\t"))
    with pytest.raises(soop.ValuesError, match=r"row 2, column 'bmi': ''; allowed: .*n/a$"):
        _adapt(source)


# --------------------------------------------------------------------------------- a folder that exists


def test_a_second_run_changes_nothing(source):
    first, out = _adapt(source)
    before = {path: (path.read_bytes(), path.stat().st_ino) for path in out.rglob("*lesion.nii.gz")}
    second, _ = _adapt(source)
    pd.testing.assert_frame_equal(first, second)
    assert before == {
        path: (path.read_bytes(), path.stat().st_ino) for path in out.rglob("*lesion.nii.gz")
    }


def test_an_interrupted_run_has_no_description_and_is_continued(source, monkeypatch):
    _save(source / "masks" / "sub-2_lesion.nii.gz", _mask(np.s_[0:3], value=255))
    write, calls = lesions.write, []

    def stopping(lesion, target):
        calls.append(target.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(lesion, target)

    monkeypatch.setattr(lesions, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        _adapt(source)
    out = source.parent / "dataset"
    assert len(list(out.rglob("*lesion.nii.gz"))) == 2
    assert not (out / "dataset_description.json").exists()
    _adapt(source)
    assert calls[2:] == ["sub-4_lesion.nii.gz"] * 2, "what was written is not written again"
    assert (out / "dataset_description.json").exists()


def test_another_dataset_is_written_over_only_when_asked(source):
    _, out = _adapt(source)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (source / "masks" / "sub-1_lesion.nii.gz").unlink()
    _save(source / "masks" / "sub-2_lesion.nii.gz", _mask(np.s_[0:3]))
    with pytest.raises(InputError, match=r"participants.tsv is not of this one.*--replace"):
        _adapt(source)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    _adapt(source, replace=True)
    assert _table(out).loc["sub-1", "lesion_ml"] == "-99"
    assert not (out / "sub-1" / "anat" / "sub-1_lesion.nii.gz").exists(), "a mask of no row is left"
    assert _table(out).loc["sub-2", "lesion_ml"] == "1.440"
    _adapt(source)  # and now it is this one


def test_a_mask_that_was_changed_in_the_dataset_is_noticed(source):
    _, out = _adapt(source)
    path = out / "sub-4" / "anat" / "sub-4_lesion.nii.gz"
    path.write_text("spoilt")
    with pytest.raises(InputError, match=r"sub-4_lesion.nii.gz is not of this one"):
        _adapt(source)
    _adapt(source, replace=True)
    assert path.read_bytes() == (source / "masks" / "sub-4_lesion.nii.gz").read_bytes()


def test_folders_that_are_never_written_into(source):
    out = source.parent / "dataset"
    out.write_text("")
    with pytest.raises(InputError, match="is a file"):
        _adapt(source)
    out.unlink()
    storage.write_text(out / "notes.txt", "mine")
    with pytest.raises(InputError, match="notes.txt is not of this one"):
        _adapt(source)
    storage.write_json(out / "dataset_description.json", {"Name": "x", "simulated": True})
    with pytest.raises(InputError, match="holds a simulated dataset"):
        _adapt(source, replace=True)
    with pytest.raises(InputError, match="would be written over"):
        soop.adapt(source / "masks", source / "participants.tsv", source, replace=True)


def test_the_command(source):
    out = source.parent / "dataset"
    options = [
        "--masks",
        source / "masks",
        "--participants",
        source / "participants.tsv",
        "--out",
        out,
    ]
    (source / soop.ATLAS).rename(source.parent / "atlas.nii.gz")
    status, said, err = rlvo("adapt", "soop", *options)
    assert status == 2 and "--atlas FILE" in err and not said and not out.exists()
    status, said, _ = rlvo("adapt", "soop", *options, "--atlas", source.parent / "atlas.nii.gz")
    assert status == 0 and "row without a mask: 1 (sub-3)" in said
    assert (out / soop.REPORT).is_file()
    _write_rows(source / "participants.tsv", ROWS.replace("sub-1 F 63", "sub-1 F 63y"))
    status, said, err = rlvo("adapt", "soop", *options)
    assert status == 2 and "row 2, column 'age': '63y'" in said and "nothing was written" in said
    assert err.count("\n") == 1 and "row 2, column 'age': '63y'" in err
    assert rlvo("adapt", "--help")[0] == 0 and "--replace" in rlvo("adapt", "soop", "--help")[1]


# ------------------------------------------------------------------------------------- the dictionary


def test_the_studys_dictionary_can_be_imported_and_its_page_is_rendered(study, words):
    assert dictionary.redcap_faults(study.dictionary_path) == []
    page = (study.folder / "data_dictionary.md").read_text(encoding="utf-8")
    assert page == dictionary.render(words, study.outcome_label)


def test_the_dictionary_says_when_each_value_becomes_known(words):
    timing = {name: field.timing for name, field in words.fields.items()}
    assert {name for name, when in timing.items() if when == "POST"} == {
        "etiology",
        "mrs_discharge",
    }
    assert timing["race"] == "PRE_SENSITIVITY" and timing["poor_outcome"] == "DERIVED"
    volumes = [words[name] for name in soop.VOLUMES]
    assert len(volumes) == 33
    assert {(field.timing, field.unit, field.transform) for field in volumes} == {
        ("PRE", "mL", "log1p")
    }
    assert words.leakage("poor_outcome") and words.leakage("race")
    for name in soop.VOLUMES[1:]:
        side = "left" if int(name.split("_")[1]) % 2 else "right"
        assert words[name].label.endswith(f", {side}")


# --------------------------------------------------------------------------- the list of real-data files


@pytest.fixture
def small_list(tmp_path, monkeypatch):
    """A folder of one plain file and one archive, and their list."""
    folder = tmp_path / "realdata"
    storage.write_text(folder / "plain.txt", "plain")
    storage.write_text(tmp_path / "b.txt", "bee")
    storage.write_text(tmp_path / "a.txt", "ay")
    _pack(folder / "two.tar.gz", tmp_path, ["b.txt", "a.txt"])
    rows = [
        {"file": "plain.txt", "project": "P", "version": "1", "path": "in/plain", "licence": "MIT",
         "sha256": storage.digest(folder / "plain.txt"), "contents_sha256": "", "note": ""},
        {"file": "two.tar.gz", "project": "Q", "version": "unknown", "path": "in/two", "licence": "CC0",
         "sha256": storage.digest(folder / "two.tar.gz"),
         "contents_sha256": realdata.contents(folder / "two.tar.gz"), "note": "packed here"},
    ]  # fmt: skip
    monkeypatch.setattr(realdata, "listed", lambda: rows)
    monkeypatch.setenv("RLVO_REALDATA", str(folder))
    return folder


def _pack(archive, folder, names, prefix="x/"):
    with tarfile.open(archive, "w:gz") as tar:
        for name in names:
            tar.add(folder / name, prefix + name)


def test_each_listed_file_is_intact_changed_or_absent(small_list, capsys):
    assert realdata.main() == 0
    assert "2 intact, 0 changed, 0 absent" in capsys.readouterr().out
    _pack(small_list / "two.tar.gz", small_list.parent, ["a.txt", "b.txt"], "packed/again/")
    (small_list / "plain.txt").unlink()
    assert realdata.main() == 0, "absent files are listed, and no fault"
    said = capsys.readouterr().out
    assert "absent  plain.txt\n        from P, version 1, in/plain (MIT)\n        SHA-256 " in said
    assert "1 intact, 0 changed, 1 absent" in said
    _pack(small_list / "two.tar.gz", small_list.parent, ["a.txt"])
    assert realdata.main() == 1
    assert "changed two.tar.gz\n        from Q, version unknown, in/two (CC0); packed here" in (
        capsys.readouterr().out
    )
    storage.write_text(small_list / "two.tar.gz", "no archive")
    assert realdata.main() == 1


def test_the_list_is_whole():
    rows = realdata.listed()
    assert len(rows) == 10 and list(rows[0]) == realdata.COLUMNS
    for row in rows:
        assert all(row[name] for name in ("file", "project", "version", "path", "licence")), row
        assert len(row["sha256"]) == 64 and bool(row["contents_sha256"]) == (".tar" in row["file"])


def test_the_real_files_are_those_that_are_listed():
    states = {row["file"]: realdata.state(row, realdata.folder()) for row in realdata.listed()}
    if set(states.values()) == {"absent"}:
        pytest.skip("real data not here: set RLVO_REALDATA to their folder")
    assert "changed" not in states.values(), states


# ------------------------------------------------------------------------------------- the real patients

SOOP = realdata.folder() / "soop"
needs_soop = pytest.mark.skipif(
    not (SOOP / "lesion_masks.tar").is_file(),
    reason="SOOP not here: set RLVO_REALDATA to the folder of real data",
)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The report, the dataset folder and the seconds that it took."""
    folder = tmp_path_factory.mktemp("soop")
    with tarfile.open(SOOP / "lesion_masks.tar") as tar:
        tar.extractall(folder, filter="data")
    begun = time.monotonic()
    report = soop.adapt(folder / "lesion_masks", SOOP / "participants.tsv", folder / "dataset")
    return report, folder / "dataset", time.monotonic() - begun


@needs_soop
def test_340_real_masks_and_350_rows(real):
    report, out, seconds = real
    assert report["what"].value_counts().to_dict() == {
        "row without a mask": 10, "age 89 or more": 7, "over 400 mL": 2, "under 0.1 mL": 4,
        "another data type": 1, "outside the atlas": 254,
    }  # fmt: skip
    assert _flagged(report, "over 400 mL") == {"sub-303": "665.974", "sub-724": "408.935"}
    assert _flagged(report, "another data type") == {"sub-989": "int16"}
    assert len(list(out.glob("sub-*/anat/*_lesion.nii.gz"))) == 340
    assert seconds < 60


@needs_soop
def test_the_real_table(real, study, words):
    report, out, _ = real
    data = dataset.load_dataset(out, study, words)
    table = data.table
    assert len(table) == 350
    needed = ["age", "sex", "nihss", "mrs_discharge", "lesion_ml"]
    assert len(table.dropna(subset=needed)) == 300
    assert table["lesion_ml"].notna().sum() == 340
    assert (table["age"].dropna() <= 89).all() and (table["age"] == 89).sum() >= 7
    # the parts and what lies outside the atlas make up the whole
    outside = report[report["what"] == "outside the atlas"].set_index("participant_id")
    voxels = outside["detail"].str.split().str[0].astype(float).reindex(table.index, fill_value=0)
    parts = table[list(soop.VOLUMES[1:])].sum(axis=1)
    known = table["lesion_ml"].notna()
    np.testing.assert_allclose((parts + voxels / 1000)[known], table["lesion_ml"][known], atol=1e-9)
    faults = validation.validate(out, study, words)
    assert faults[faults["severity"] == "error"].empty, faults.to_string()


@needs_soop
def test_real_lesions_on_the_left_have_their_volume_in_left_territories(real):
    _, out, _ = real
    table = _table(out).filter(like="territory").astype(float)
    for name in ("sub-13", "sub-17", "sub-19", "sub-26", "sub-28", "sub-33"):
        array, affine = images.load_nifti(out / name / "anat" / f"{name}_lesion.nii.gz")
        x = nib.affines.apply_affine(affine, np.argwhere(array))[:, 0]
        left, right = table.loc[name].to_numpy().reshape(16, 2).sum(axis=0)
        if abs((x < 0).mean() - 0.5) > 0.2:
            assert (left > right) == ((x < 0).mean() > 0.5), name
    atlas = lesions.load_atlas(SOOP / soop.ATLAS)
    assert nib.aff2axcodes(atlas.grid.affine) == ("L", "A", "S")
