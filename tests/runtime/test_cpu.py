"""What /proc/cpuinfo says becomes what a precision needs; x86 without VNNI is told from everything else."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_bundle import write_manifest

from sage_edge.runtime import Bundle, cpu, open_engine
from sage_edge.runtime.precision import Choice

HASWELL = (
    "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu sse sse2 ssse3 fma sse4_1 sse4_2 avx f16c rdrand bmi1 avx2 bmi2\nbogomips\t: 4600\n"
)
SKYLAKE_SERVER = HASWELL.replace("bmi2", "bmi2 avx512f avx512dq avx512cd avx512bw avx512vl")
CASCADE_LAKE = SKYLAKE_SERVER.replace("avx512vl", "avx512vl avx512_vnni")
SAPPHIRE_RAPIDS = CASCADE_LAKE.replace("avx512_vnni", "avx_vnni avx512_bf16 avx512_vnni amx_bf16 avx512_fp16 amx_tile amx_int8")
ALDER_LAKE = HASWELL.replace("bmi2", "bmi2 avx_vnni")
ATOM = "flags\t\t: fpu sse sse2 ssse3 sse4_1 sse4_2\n"
CORTEX_A78AE = (
    "processor\t: 0\nFeatures\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp uscat\nCPU part\t: 0xd42\n"
)
NEOVERSE_V3 = CORTEX_A78AE.replace("uscat", "uscat i8mm bf16")


@pytest.mark.parametrize(
    ("text", "arch", "features", "saturates"),
    [
        (HASWELL, "x86_64", {"avx2"}, True),
        (SKYLAKE_SERVER, "x86_64", {"avx2", "avx512"}, True),
        (CASCADE_LAKE, "x86_64", {"avx2", "avx512", "avx512_vnni"}, False),
        (SAPPHIRE_RAPIDS, "AMD64", {"avx2", "avx512", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"}, False),
        (ALDER_LAKE, "x86_64", {"avx2", "avx_vnni"}, False),
        (ATOM, "x86_64", set(), False),
        (CORTEX_A78AE, "aarch64", {"fp16", "dotprod"}, False),
        (NEOVERSE_V3, "aarch64", {"fp16", "dotprod", "i8mm", "bf16"}, False),
        ("", "x86_64", set(), False),
    ],
)
def test_features_and_saturation(text: str, arch: str, features: set[str], saturates: bool) -> None:
    found = cpu.features_of(text, arch)
    assert found == features
    assert found <= set(cpu.FEATURES)
    assert cpu.saturates(found, arch) is saturates


def test_this_machine() -> None:
    assert cpu.features() == cpu.features_of(Path("/proc/cpuinfo").read_text(), platform.machine())
    assert (cpu.saturation_note("onnxruntime") is None) is (not cpu.saturates(cpu.features()))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="an x86 fact")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_note_is_one_line_and_only_where_products_saturate(backend: str) -> None:
    assert cpu.saturation_note(backend, {"avx2", "avx512_vnni"}) is None
    note = cpu.saturation_note(backend, {"avx2"})
    assert note is not None
    assert note.startswith("this processor has no VNNI: ")
    assert "\n" not in note
    assert cpu.saturation_note("tensorrt", {"avx2"}) is None


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="an x86 fact")
def test_a_graph_without_vnni_computes_the_same(bundle: Bundle, copy_of: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's way out is taken here too, and changes no number where nothing saturates; who runs int8-cpu graphs is told."""
    outputs, choice = [], Choice("onnxruntime", "int8-cpu")
    for found in (frozenset({"avx2", "avx512_vnni"}), frozenset({"avx2"})):
        monkeypatch.setattr(cpu, "features", lambda found=found: found)
        engine = open_engine(bundle.graph("fusion", "int8-cpu"), threads=1)
        for array in engine.inputs.values():
            array[...] = np.linspace(0, 1, array.size).reshape(array.shape)
        engine.run()
        outputs.append({name: array.copy() for name, array in engine.outputs.items()})
        assert (choice.note(bundle) is not None) is ("avx512_vnni" not in found)
    for name, value in outputs[0].items():
        assert np.allclose(value, outputs[1][name], atol=1e-6)
    assert Choice("onnxruntime", "fp32").note(bundle) is None
    model = onnx.load(bundle.graph("visual", "int8-cpu"))
    model.metadata_props.add(key="weight_bits", value="7")
    path = copy_of()
    onnx.save(model, path / "onnx/visual.int8-cpu.onnx")
    write_manifest(path)
    assert choice.note(Bundle.open(path)) is None
