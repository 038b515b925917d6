"""Presets and settings: names, types, and errors that say what to write instead."""

import subprocess
import sys

import pytest

from sage_edge.runtime.errors import UsageError
from sage_edge.training import presets, settings
from sage_edge.training.config import TrainConfig, split_settings

TINY = presets.get("tiny")


def test_sizes_of_the_presets():
    base, paper, large = (presets.get(name) for name in ("base", "paper", "large"))
    assert (base.visual_dim, base.audio_dim, base.samples, base.tokens()) == (2048, 768, 160_000, 499)
    assert (paper.rgf_scale, paper.reliability) == ("paper", "temporal")
    assert {**paper.to_dict(), "name": "base", "rgf_scale": "length", "reliability": "modality"} == base.to_dict()
    assert large.audio_dim == 1024
    assert TINY.wavlm_conv_kernels == base.wavlm_conv_kernels
    assert TINY.wavlm_conv_strides == base.wavlm_conv_strides


def test_an_unknown_preset_or_key_names_the_nearest():
    with pytest.raises(UsageError, match="'tinny'; did you mean 'tiny'"):
        presets.get("tinny")
    with pytest.raises(UsageError, match="'fusion_layer'; did you mean 'fusion_layers'"):
        presets.get("tiny", {"fusion_layer": "3"})
    with pytest.raises(UsageError, match="'visual_epoch'; did you mean 'visual_epochs'"):
        split_settings(TINY, TrainConfig(), {"visual_epoch": "3"})


def test_texts_take_the_type_of_the_field():
    preset = TINY.replace({"fusion_layers": "3", "tcn_dropout": "0.25", "wavlm_norm_first": "true", "tcn_visual": "8, 16,8,8", "rgf_scale": "paper"})
    assert (preset.fusion_layers, preset.tcn_dropout, preset.wavlm_norm_first, preset.tcn_visual) == (3, 0.25, True, (8, 16, 8, 8))
    assert preset.rgf_scale == "paper"
    assert TINY.fusion_layers == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fusion_layers", "many"),
        ("fusion_layers", "2.5"),
        ("fusion_layers", 2.5),
        ("wavlm_norm_first", "perhaps"),
        ("tcn_visual", "8,x"),
        ("reliability", "both"),
        ("fusion", "magic"),
        ("fusion_heads", "7"),
        ("input_size", "64"),
        ("resnet_blocks", "1,1"),
        ("wavlm_conv_dims", "8,8"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(key, value):
    with pytest.raises(UsageError, match=key):
        TINY.replace({key: value})


@pytest.mark.parametrize(
    ("key", "value"), [("visual_batch", "0"), ("drop_window", "1.5"), ("reduction", "sum"), ("audio_ticks", "301"), ("fusion_epochs", "-1")]
)
def test_a_training_setting_out_of_range_is_refused_by_name(key, value):
    with pytest.raises(UsageError, match=key):
        split_settings(TINY, TrainConfig(), {key: value})


def test_settings_go_to_whichever_has_the_key():
    preset, config = split_settings(TINY, TrainConfig(), settings.pairs(["reliability=temporal", "fusion_epochs=2"]))
    assert (preset.reliability, config.fusion_epochs) == ("temporal", 2)
    assert not set(settings.keys(TINY)) & set(settings.keys(TrainConfig()))
    with pytest.raises(UsageError, match="no '='"):
        settings.pairs(["fusion_epochs"])


def test_a_preset_survives_json_and_lacks_nothing():
    fields = TINY.to_dict()
    assert presets.from_dict(fields) == TINY
    del fields["tcn_kernel"]
    with pytest.raises(UsageError, match="tcn_kernel"):
        presets.from_dict(fields)


def test_the_package_loads_no_torch_until_it_is_used():
    code = "import sys, sage_edge.training as t; t.presets.get('tiny'); assert 'torch' not in sys.modules; t.SAGE; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    import sage_edge.training

    with pytest.raises(AttributeError, match="SAGGE"):
        sage_edge.training.SAGGE  # noqa: B018
