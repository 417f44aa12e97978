"""What the evidence shows of the truth at the level of features, and to whom."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nsclc_mtl.metrics.classification import ordinal_auc
from nsclc_mtl.phantom import evidence, truth

N, SEED = 1000, 111


@pytest.fixture(scope="module")
def drawn() -> truth.Truth:
    return truth.draw(N, SEED)


@pytest.fixture(scope="module")
def slides(drawn: truth.Truth) -> list[evidence.SlideFeatures]:
    return evidence.slides(drawn, SEED)


def out_of_fold(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Predictions of a ridge for patients it has not seen."""
    return cross_val_predict(make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 5, 13))), x, y, cv=5)


def per_patient(drawn: truth.Truth, slides: list[evidence.SlideFeatures], part: str) -> np.ndarray:
    """Mean feature of all or of the tumour tiles [patient, dim]."""
    rows: dict[str, list[np.ndarray]] = {}
    for slide in slides:
        rows.setdefault(slide.patient_id, []).append(slide.features[slide.tumour if part == "tumour" else slice(None)])
    return np.stack([np.concatenate(rows[p]).mean(0) for p in drawn.patients["patient_id"]])


def test_mean_pooling_is_blinded_and_tumour_pooling_is_not(
    drawn: truth.Truth, slides: list[evidence.SlideFeatures]
) -> None:
    grade = drawn.outcomes["grade"].to_numpy()
    margin = float(ordinal_auc(grade, truth.ceilings(drawn)["attainable"]["grade"])) - 0.5

    def share(part: str) -> float:
        said = out_of_fold(per_patient(drawn, slides, part), grade.astype(float))
        return (float(ordinal_auc(grade, said)) - 0.5) / margin

    assert share("all") <= 0.60
    assert share("tumour") >= 0.90


def test_tumour_share_is_independent_of_histology(drawn: truth.Truth, slides: list[evidence.SlideFeatures]) -> None:
    share = np.array([slide.tumour.mean() for slide in slides])
    statistic = dict(zip(drawn.patients["patient_id"], drawn.statistics[:, 0], strict=True))
    assert share.min() > 0.09
    assert share.max() < 0.42
    assert abs(np.corrcoef(share, [statistic[s.patient_id] for s in slides])[0, 1]) < 0.08


def test_histology_is_not_among_the_largest_variances(slides: list[evidence.SlideFeatures]) -> None:
    tiles = np.concatenate([slide.features for slide in slides[:300]]).astype(float)
    spread = np.sqrt(np.linalg.eigvalsh(np.cov(tiles.T)))[::-1]
    along = (tiles @ evidence.structure()["basis"][:, 0]).std()
    assert along < spread[10]


def test_tables_carry_their_statistic_and_no_more_than_a_few_columns_do(drawn: truth.Truth) -> None:
    for table, column in ((evidence.radiomics, 1), (evidence.rna, 2)):
        frame = table(drawn, SEED).set_index("patient_id")
        has = drawn.has["radiomics" if column == 1 else "rna"]
        assert list(frame.index) == list(drawn.patients["patient_id"][has])
        target = drawn.statistics[has, column]
        assert np.corrcoef(out_of_fold(frame.to_numpy(), target), target)[0, 1] > 0.9
        each = np.abs([np.corrcoef(frame[c], target)[0, 1] for c in frame])
        carriers = evidence.RADIOMICS_SIGNAL if column == 1 else evidence.GENES_SIGNAL
        assert (each > 0.4).sum() == carriers


def test_proteomics_is_the_null_modality(drawn: truth.Truth) -> None:
    x = evidence.proteomics(drawn, SEED).set_index("patient_id").to_numpy()
    for i in range(3):
        assert abs(np.corrcoef(out_of_fold(x, drawn.latents[:, i]), drawn.latents[:, i])[0, 1]) < 0.12
    grade = drawn.outcomes["grade"].to_numpy()
    assert abs(float(ordinal_auc(grade, out_of_fold(x, grade.astype(float)))) - 0.5) < 0.06


def test_redundant_table_copies_the_histology_and_site_table_tells_the_site(drawn: truth.Truth) -> None:
    copy = evidence.redundant(drawn, SEED).drop(columns="patient_id").mean(axis=1)
    assert np.corrcoef(copy, drawn.statistics[:, 0])[0, 1] > 0.95
    coded = evidence.site_coded(drawn, SEED).drop(columns="patient_id").to_numpy()
    at_c = (drawn.patients["site"] == "C").to_numpy(float)
    assert np.corrcoef(out_of_fold(coded, at_c), at_c)[0, 1] > 0.7
    assert abs(np.corrcoef(out_of_fold(coded, drawn.latents[:, 0]), drawn.latents[:, 0])[0, 1]) < 0.12
