"""Buckets of n-grams, and weights that do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from truing.judges.moderation.inputs import EncodedInput
from truing.judges.moderation.ngrams import NgramModel, ngram_buckets, quantise_columns


def buckets(ids: tuple[int, ...], segments: tuple[int, ...], bits: int = 16) -> set[int]:
    return set(ngram_buckets(EncodedInput(ids, segments), bits).tolist())


def test_the_same_words_in_prompt_and_response_are_other_features() -> None:
    one = buckets((1, 5, 2, 6, 2), (0, 0, 0, 1, 1))
    swapped = buckets((1, 6, 2, 5, 2), (0, 0, 0, 1, 1))
    assert one != swapped
    # 1 unigram, 2 bigrams and 1 trigram of the prompt; 1 unigram and 1 bigram of the response
    assert len(one) == 6
    response_alone = buckets((1, 2, 6, 2), (0, 0, 1, 1))
    assert len(response_alone & one) == 2  # 6, and 6 with the end


def test_the_buckets_are_those_of_older_versions() -> None:
    # The weights of trained models are stored by bucket.
    row = EncodedInput((1, 5, 2, 6, 2), (0, 0, 0, 1, 1))
    assert ngram_buckets(row, 16).tolist() == [10657, 17038, 52682, 55680, 58040, 62283]


def test_special_tokens_alone_are_no_features() -> None:
    assert buckets((1,), (0,)) == set()
    assert len(buckets((1, 2), (0, 0))) == 1  # the bigram of begin and end


def test_logits_by_hand() -> None:
    row = EncodedInput((1, 5, 2), (0, 0, 0))
    used = ngram_buckets(row, 8)
    weight, idf = np.zeros((256, 2), np.int8), np.ones(256, np.float32)
    weight[used] = [[10, 0], [20, 0], [30, 0], [40, 0]][: len(used)]
    model = NgramModel(weight, np.array([0.5, 1.0], np.float32), idf)
    expected = 0.5 * weight[used, 0].sum() / np.sqrt(len(used))  # a row of length 1
    assert model.logits([row])[0].tolist() == pytest.approx([expected, 0.0])
    assert model.logits([EncodedInput((1,), (0,))]).tolist() == [[0.0, 0.0]]


def test_columns_are_quantised_each_by_its_largest_weight() -> None:
    quantised, scale = quantise_columns(np.array([[1.27, -4.0], [0.5, 2.0]], np.float32))
    assert quantised.tolist() == [[127, -127], [50, 64]]
    assert scale.tolist() == pytest.approx([0.01, 4 / 127])


@pytest.mark.parametrize(
    ("shape", "scales", "frequencies"), [((100, 4), 4, 100), ((128, 4), 4, 64), ((128, 4), 3, 128)]
)
def test_weights_that_do_not_fit_are_refused(
    shape: tuple[int, int], scales: int, frequencies: int
) -> None:
    weight = np.zeros(shape, np.int8)
    scale, idf = np.ones(scales, np.float32), np.ones(frequencies, np.float32)
    with pytest.raises(ValueError, match="do not fit|scales for"):
        NgramModel(weight, scale, idf)
