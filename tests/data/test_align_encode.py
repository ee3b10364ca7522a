import cv2
import numpy as np
import pytest

from r2m.data.align import align, similarity, template, transform
from r2m.data.detect import attempts
from r2m.data.images import encode


def test_similarity_recovers_a_known_transform() -> None:
    points = template(100, 1.3)
    angle, scale, move = 0.4, 1.7, np.array([12.0, -5.0])
    matrix = np.column_stack(
        [scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]), move]
    )
    np.testing.assert_allclose(similarity(points, transform(points, matrix)), matrix, atol=1e-3)


def test_align_puts_landmarks_on_the_template_at_any_scale() -> None:
    for factor in (0.5, 1.0, 6.0):
        image = np.full((round(300 * factor), round(300 * factor), 3), 128, dtype=np.uint8)
        points = ((template(144, 1.3) + 70) * factor).astype(np.float32)
        crop, landmarks = align(image, points, 144, 1.3)
        assert crop.shape == (144, 144, 3)
        np.testing.assert_allclose(landmarks, template(144, 1.3), atol=0.6)


@pytest.mark.parametrize("factor", [1.99, 2.0, 2.01, 3.3, 7.0, 31.7])
def test_a_face_larger_than_the_crop_stays_in_place(factor: float) -> None:
    points = (template(64, 1.3) * factor).astype(np.float32)
    image = np.full((round(67 * factor), round(71 * factor), 3), 128, dtype=np.uint8)
    cv2.circle(image, points[0].round().astype(int).tolist(), round(2 * factor), (255, 255, 255), -1)
    crop, landmarks = align(image, points, 64, 1.3)
    bright = crop[:, :, 0].astype(float) - 128
    ys, xs = np.mgrid[:64, :64]
    centre = np.array([(xs * bright).sum(), (ys * bright).sum()]) / bright.sum()
    np.testing.assert_allclose(centre, landmarks[0], atol=0.5)


def test_align_takes_a_smaller_margin_rather_than_mirror_the_face() -> None:
    image = np.full((120, 120, 3), 200, dtype=np.uint8)
    points = template(120, 1.0)
    wide, tight = align(image, points, 144, 1.3)[1], template(144, 1.0)
    np.testing.assert_allclose(wide, tight, atol=4)
    assert align(image, points, 144, 1.3)[0].min() > 190


def test_small_photographs_are_enlarged_first() -> None:
    assert next(attempts(112, 92)) == (2.0, 0.0)
    assert next(attempts(3000, 2000))[0] == pytest.approx(640 / 3000)


def test_encode_draws_the_quality_from_both_ends_and_by_the_stream_alone() -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    first = encode(image, 48, (70, 95), np.random.default_rng(5))
    assert first == encode(image, 48, (70, 95), np.random.default_rng(5))
    decoded = cv2.imdecode(np.frombuffer(first, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (48, 48, 3)
    sizes = {len(encode(image, 48, (70, 71), np.random.default_rng(i))) for i in range(20)}
    assert len(sizes) == 2
