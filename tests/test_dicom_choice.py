"""What each series is, and which of them becomes a scan."""

import dicoms
import pytest

from rlvo_lib.dicom import choice, kinds, series
from rlvo_lib.dicom.choice import Answer
from rlvo_lib.dicom.headers import read_headers
from rlvo_lib.dicom.kernels import code, sharpness


def _stacks(*groups):
    paths = sorted(path for group in groups for path in group)
    (patient,) = series.patients(read_headers(paths).headers)[0]
    return patient.stacks


def _kind(paths):
    (stack,) = _stacks(paths)
    return kinds.kind_of(stack)


@pytest.mark.parametrize(
    "description, contrast, expected",
    [
        ("HEAD W/O 5.0 H31s", "", "ncct"),
        ("Cráneo s/c", "", "ncct"),
        ("TC CRANEO BASAL", "", "ncct"),
        ("NCCT 1.0", "", "ncct"),
        ("Kopf nativ", "NONE", "ncct"),
        ("Brain", "", "ncct"),
        ("", "", "ncct"),  # the tag says HEAD
        ("CTA 0.6 Bv36", "IOMERON", "cta"),
        ("Angio TSA y Willis", "Omnipaque 300", "cta"),
        ("AngioTC de cráneo", "", "cta"),
        ("COW 0.75", "Ultravist", "cta"),
        ("Carotid_HeadNeck", "c", "cta"),
        ("HEAD C+", "", "cta?"),
        ("HEAD", "IOMERON", "cta?"),
        ("HEAD WITHOUT", "IOMERON", "ncct?"),
        ("CTA HEAD", "NONE", "cta?"),
        ("CTA without", "", "ncct?"),
        ("CTA venous phase", "IOMERON", "a later phase"),
        ("CTA phase 2", "IOMERON", "a later phase"),
        ("CTA MIP ax", "IOMERON", "a projection"),
        ("COR MPR", "", "a projection"),
        ("VRT", "IOMERON", "a projection"),
        ("CTA bone removal", "IOMERON", "processed"),
        ("Monoenergetic Plus 40", "IOMERON", "processed"),
        ("Topogram 0.6", "", "a localizer"),
        ("Premonitoring", "", "bolus"),
        ("Dose Report", "", "a dose report"),
        ("CTP 0.5 Hr36", "IOMERON", "named as perfusion"),
        ("CBF color", "IOMERON", "a summary"),
        ("Perfusion TTP", "IOMERON", "another perfusion map"),
        ("rCBF", "IOMERON", "a relative"),
        ("HEAD +C", "", "cta?"),
        ("BRAIN W/", "", "cta?"),
        ("HEAD W/ AND W/O", "", "ncct?"),
        ("HEAD W/WO CONTRAST", "", "ncct?"),
        ("HEAD WITHOUT CONTRAST", "", "ncct"),
        ("HEAD CONTROL 24H", "", "ncct?"),
        ("Head VIRTUAL NON CONTRAST", "", "processed"),
        ("HEAD VUE", "", "processed"),
        ("HEAD 70keV", "", "processed"),
        ("CTA MIPS", "IOMERON", "a projection"),
        ("CTA HEAD tMIP", "IOMERON", "a projection"),
        ("CTA 2. Phase", "IOMERON", "a later phase"),
        ("CTA HEAD PHASE2", "IOMERON", "a later phase"),
        ("CTA NECK 0.6", "IOMERON", "cta?"),
        ("CTA HEAD AND NECK", "IOMERON", "cta"),
        ("CTA CHEST", "IOMERON", "another part"),  # though the tag says HEAD
        ("CERVICAL SPINE 1.25", "", "another part"),
        ("SINUS 1.0", "", "another part"),
        ("HEAD AND ORBITS", "", "ncct?"),
    ],
)
def test_kinds_by_description_and_contrast(tmp_path, description, contrast, expected):
    kind = _kind(dicoms.series(tmp_path, description=description, ContrastBolusAgent=contrast))
    if kind.name == "aside":
        assert expected in kind.reason
    else:
        assert kind.name + ("?" if kind.unsure else "") == expected, kind


@pytest.mark.parametrize(
    "tags, expected",
    [
        ({"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "not a CT: MR"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "a secondary capture"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "a picture of colours"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "a picture of colours"),
        ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"]}, "a projection"),
        ({"ImageType": ["DERIVED", "PRIMARY", "MIP"]}, "a projection"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "heights": None}, None),
        ({"BodyPartExamined": "CHEST", "description": "Thorax"}, "another part of the body"),
        ({"slices": 6}, "6 slices over 25 mm: not a whole head"),
        ({"slices": 30, "slice_mm": 2.5}, "72 mm of a plain CT"),
        ({"slices": 160}, "795 mm long"),
        ({"times": 10, "slices": 12}, "a perfusion series over time (10 images at each of 12"),
        ({"times": 20, "slices": 1}, "bolus tracking"),
    ],
)
def test_kinds_by_tags(tmp_path, tags, expected):
    kind = kinds.kind_of(_stacks(dicoms.series(tmp_path, **tags))[0])
    assert kind.name == "aside"
    if expected:
        assert expected in kind.reason


def test_a_tag_of_another_part_of_the_body_against_the_description_is_asked_about(tmp_path):
    kind = _kind(dicoms.cta(tmp_path, description="CTA HEAD", BodyPartExamined="CHEST"))
    assert kind.name == "cta" and "body part" in kind.unsure


def test_a_spine_is_no_head_because_the_study_is_of_both(tmp_path):
    both = {"StudyDescription": "CT HEAD AND C-SPINE", "BodyPartExamined": None}
    stacks = _stacks(
        dicoms.ncct(tmp_path / "a", description="HEAD 5.0", **both),
        dicoms.ncct(tmp_path / "b", description="CERVICAL SPINE", number=3, thickness=1.25, **both),
    )
    assert choice.choose(stacks, {}).chosen["ncct"].label == "study1_series2"


def test_carotids_from_the_arch_to_the_vertex_are_kept(tmp_path):
    heights = [-230.0 + 2.5 * i for i in range(150)]
    assert _kind(dicoms.cta(tmp_path, heights=heights, BodyPartExamined="NECK")).name == "cta"


@pytest.mark.parametrize("scan", ["CBF", "CBV", "MTT", "TMAX"])
def test_maps_by_image_type_or_description(tmp_path, scan):
    by_type = dicoms.perfusion_map(tmp_path / "t", scan, 4.0, description="x")
    by_words = dicoms.perfusion_map(
        tmp_path / "w", scan, 4.0, ImageType=["DERIVED", "PRIMARY", "AXIAL"]
    )
    assert _kind(by_type).name == _kind(by_words).name == scan.lower()


def test_maps_in_another_unit_are_set_aside(tmp_path):
    assert kinds.unit_factor("cbf", "ml/100ml/min") == pytest.approx(1 / 1.05)
    assert kinds.unit_factor("tmax", "ms") == 0.001 and kinds.unit_factor("mtt", "ml") is None
    paths = dicoms.perfusion_map(tmp_path, "CBF", 50.0, RescaleType="percent")
    assert "a unit that is not known" in _kind(paths).reason


@pytest.mark.parametrize(
    "kernel, brain, vessels",
    [
        ("STANDARD", "soft", "soft"), ("SOFT", "soft", "soft"), ("BONEPLUS", "sharp", "sharp"),
        ("H30s", "soft", "soft"), ("J40s", "soft", "soft"), ("Hr38f", "soft", "soft"),
        ("Hr68", "sharp", "sharp"), ("H70h", "sharp", "sharp"), ("Bv49", "sharp", "soft"),
        ("UB", "soft", "soft"), ("D", "sharp", "sharp"), ("FC21", "soft", "soft"),
        ("FC30", "sharp", "sharp"), ("FC43", "soft", "soft"), ("", "unknown", "unknown"),
        ("Mystery", "unknown", "unknown"),
    ],
)  # fmt: skip
def test_kernels(kernel, brain, vessels):
    assert (sharpness(kernel, "ncct"), sharpness(kernel, "cta")) == (brain, vessels)
    assert code(kernel) == ("" if brain == "unknown" else kernel)


def test_only_codes_of_kernels_are_written():
    for text in (
        "Maria",
        "H31s Maria",
        "=cmd",
        "STANDARD of Dr. X",
        "SOFT\nx",
        "B\u00e9a",
        "H3\u0661s",
    ):
        assert code(text) in ("", "H31s") and "Maria" not in code(text)


# ------------------------------------------------------------------------------------- the choice


def _chosen(*groups, answers=None):
    made = choice.choose(_stacks(*groups), answers or {})
    return {scan: stack.label for scan, stack in made.chosen.items()}, made


def test_the_thinnest_soft_series_is_taken(tmp_path):
    chosen, made = _chosen(
        dicoms.ncct(tmp_path, number=2),
        dicoms.ncct(tmp_path, number=3, slice_mm=2.5, slices=58),
        dicoms.ncct(tmp_path, number=4, slice_mm=1.25, slices=116, kernel="H60s"),
        dicoms.cta(tmp_path, number=5),
        dicoms.cta(tmp_path, number=6, slice_mm=2.0, AcquisitionTime="103500"),
    )
    assert chosen == {"ncct": "study1_series3", "cta": "study1_series5"}
    assert made.outcomes["study1_series2"].reason == "study1_series3 is preferred"
    assert "sharp kernel" in made.outcomes["study1_series4"].reason
    assert not made.open and not made.refused


def test_thick_slices_are_taken_with_a_note_and_thicker_ones_are_asked_about(tmp_path):
    chosen, made = _chosen(dicoms.ncct(tmp_path, slice_mm=7.0, slices=20))
    assert "thicker (7 mm) than 5 mm" in made.outcomes[chosen["ncct"]].reason
    _, made = _chosen(
        dicoms.cta(tmp_path / "b", slice_mm=5.0, heights=[5.0 * i for i in range(24)])
    )
    assert made.open[0].reason == "no slices of 0.3 to 3 mm: is one of these good enough?"


def test_an_unknown_kernel_is_asked_about_unless_a_soft_one_is_there(tmp_path):
    _, made = _chosen(dicoms.ncct(tmp_path, kernel="Mystery"))
    assert "not known here" in made.open[0].reason
    chosen, _ = _chosen(dicoms.ncct(tmp_path, kernel="Mystery"), dicoms.ncct(tmp_path, number=3))
    assert chosen == {"ncct": "study1_series3"}
    chosen, _ = _chosen(dicoms.ncct(tmp_path / "c", kernel="", description="Brain soft"))
    assert chosen == {"ncct": "study1_series2"}


def test_scans_come_from_the_study_of_the_cta(tmp_path):
    baseline = [dicoms.ncct(tmp_path / "1"), dicoms.cta(tmp_path / "1")]
    later = dicoms.ncct(tmp_path / "2", study=2, slice_mm=2.5, slices=58)
    chosen, made = _chosen(*baseline, later)
    assert chosen == {"ncct": "study1_series2", "cta": "study1_series5"}
    assert "not in study 1" in made.outcomes["study2_series2"].reason
    # the CTA of one hospital, the NCCT of another: for a person
    chosen, made = _chosen(dicoms.cta(tmp_path / "1"), later)
    assert chosen == {"cta": "study1_series5"}
    assert made.open[0].reason == "not in study 1, which the other scans are from"


def test_two_studies_that_could_be_the_baseline_are_left_to_a_person(tmp_path):
    groups = [
        dicoms.ncct(tmp_path / "1"), dicoms.cta(tmp_path / "1"),
        dicoms.ncct(tmp_path / "2", study=2), dicoms.cta(tmp_path / "2", study=2),
    ]  # fmt: skip
    chosen, made = _chosen(*groups)
    assert not chosen and {q.scan for q in made.open} == {"ncct", "cta"}
    assert made.open[0].reason == "studies 1 and 2 each have a CTA: which one is the baseline?"
    # one answer names the study, and the rest follows
    answer = Answer("study2_series5", made.open[1].state)
    chosen, made = _chosen(*groups, answers={"cta": answer})
    assert chosen == {"ncct": "study2_series2", "cta": "study2_series5"} and not made.open


def test_a_thinner_scan_of_hours_later_is_asked_about(tmp_path):
    """Often of the same study: the control after the treatment."""
    before = dicoms.ncct(tmp_path, number=2)
    after = dicoms.ncct(tmp_path, number=9, slice_mm=2.5, slices=58, AcquisitionTime="134500")
    chosen, made = _chosen(before, after)
    assert not chosen
    assert made.open[0].reason == "acquired 193 minutes apart: which one is the baseline?"


def test_a_follow_up_with_a_cta_is_not_the_baseline_because_of_it(tmp_path):
    chosen, made = _chosen(
        dicoms.ncct(tmp_path / "1"),
        dicoms.ncct(tmp_path / "2", study=2, date="20210306"),
        dicoms.cta(tmp_path / "2", study=2, date="20210306"),
    )
    assert not chosen and {q.scan for q in made.open} == {"ncct", "cta"}
    assert made.open[0].reason.startswith("study 1 has an earlier NCCT than study 2")


def test_a_plain_scan_after_the_cta_does_not_take_the_place_of_the_one_before(tmp_path):
    before = dicoms.ncct(tmp_path / "1", number=2)
    vessels = dicoms.cta(tmp_path / "1", number=5)
    after = dicoms.ncct(tmp_path / "2", number=7, slice_mm=2.5, slices=58)
    chosen, made = _chosen(before, vessels, after)
    assert chosen["ncct"] == "study1_series2"
    assert "after the CTA" in made.outcomes["study1_series7"].reason
    chosen, made = _chosen(vessels, after)
    assert chosen == {"cta": "study1_series5"} and "after the CTA" in made.open[0].reason


def test_an_ncct_hours_before_the_cta_is_asked_about(tmp_path):
    early = dicoms.ncct(tmp_path, AcquisitionTime="013200")
    chosen, made = _chosen(early, dicoms.cta(tmp_path))
    assert chosen == {"cta": "study1_series5"}
    assert made.open[0].reason == "made 543 minutes from the CTA: are both of the baseline?"


def test_phases_are_not_told_apart_by_their_thickness(tmp_path):
    chosen, made = _chosen(
        dicoms.cta(tmp_path, number=5, AcquisitionTime="103500"),
        dicoms.cta(tmp_path, number=6, thickness=0.75, AcquisitionTime="103512.5"),
    )
    assert not chosen
    assert made.open[0].reason == "2 acquisitions: which of the phases is the arterial one?"


def test_two_maps_of_one_name_are_left_to_a_person(tmp_path):
    groups = [dicoms.perfusion_map(tmp_path, "TMAX", 3.0, number=n) for n in (24, 25)]
    chosen, made = _chosen(*groups)
    assert not chosen and made.open[0].reason == "2 maps of the same name"


def test_a_doubtful_series_is_not_taken_but_asked_about(tmp_path):
    chosen, made = _chosen(
        dicoms.ncct(tmp_path), dicoms.ncct(tmp_path, number=3, ContrastBolusAgent="X")
    )
    assert chosen == {"ncct": "study1_series2"} and not made.open
    chosen, made = _chosen(dicoms.ncct(tmp_path / "b", number=3, ContrastBolusAgent="X"))
    assert (
        not chosen and "a contrast agent is stated, but it is named as plain" in made.open[0].reason
    )


def test_a_whole_series_is_taken_where_another_lacks_slices(tmp_path):
    chosen, made = _chosen(
        dicoms.ncct(tmp_path, number=2, slice_mm=2.5, slices=58, drop=(20,)),
        dicoms.ncct(tmp_path, number=3),
    )
    assert chosen == {"ncct": "study1_series3"} and not made.refused
    assert "missing" in made.outcomes["study1_series2"].reason
    _, made = _chosen(dicoms.ncct(tmp_path / "b", drop=(20,)))
    assert "missing" in made.refused["ncct"]


def test_a_person_may_choose_what_was_set_aside(tmp_path):
    groups = [dicoms.ncct(tmp_path), dicoms.ncct(tmp_path, number=3, description="HEAD MPR ax")]
    chosen, made = _chosen(*groups, answers={"ncct": Answer("study1_series3")})
    assert chosen == {"ncct": "study1_series3"}
    assert made.outcomes["study1_series2"].reason == "a person chose otherwise"
    assert not _chosen(*groups, answers={"ncct": Answer("none")})[0]
