"""A stretch of sound shorter than the window gives as many ticks as it was cut for."""

import pytest
import torch
from conftest_toy import TINY_SETTINGS

from sage_edge.runtime import ticks
from sage_edge.training import presets
from sage_edge.training.model import AudioEncoder, ticks_of


def test_ticks_of_is_the_inverse_of_window_samples():
    for length in range(4, 301):
        assert ticks_of(ticks.window_samples(length), ticks.RATE_HZ, ticks.SAMPLE_RATE_HZ) == length


@pytest.mark.parametrize("length", [4, 10, 37, 39, 40])
def test_the_encoder_keeps_every_tick(length):
    torch.manual_seed(0)
    encoder = AudioEncoder(presets.get("tiny", TINY_SETTINGS)).eval()
    with torch.no_grad():
        assert encoder(torch.randn(1, ticks.window_samples(length))).shape == (1, length, encoder.wavlm(torch.zeros(1, 1600)).shape[2])
