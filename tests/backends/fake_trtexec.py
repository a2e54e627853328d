"""A ``trtexec`` that knows the options of one version and writes the files of the fixtures.

An option that the version does not have ends it as it ends the real one. The options per version
are those of TensorRT's ``samples/common/sampleOptions.cpp``.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

FIXTURES = Path(__file__).parent / "fixtures"
Version = tuple[int, int]

ALWAYS = {
    *("--onnx", "--saveEngine", "--loadEngine", "--shapes", "--timingCacheFile"),
    *("--profilingVerbosity", "--noTF32", "--useDLACore", "--allowGPUFallback", "--warmUp"),
    *("--duration", "--iterations", "--avgRuns", "--percentile", "--exportTimes", "--help"),
    *("--dumpProfile", "--exportProfile", "--exportLayerInfo", "--useCudaGraph", "--useSpinWait"),
    *("--noDataTransfers", "--separateProfileRun"),
}
# From which version on, and up to which before.
LIMITED: dict[str, tuple[Version, Version]] = {
    "--buildOnly": ((8, 2), (10, 0)),
    "--workspace": ((8, 2), (10, 0)),
    "--memPoolSize": ((8, 5), (99, 0)),
    "--skipInference": ((8, 6), (99, 0)),
    "--stronglyTyped": ((10, 0), (99, 0)),
    "--fp16": ((8, 2), (11, 0)),
    "--int8": ((8, 2), (11, 0)),
    "--best": ((8, 2), (11, 0)),
    "--calib": ((8, 2), (11, 0)),
    "--includeDataTransfers": ((11, 0), (99, 0)),
    "--noCudaGraph": ((11, 0), (99, 0)),
    "--noSpinWait": ((11, 0), (99, 0)),
}


def known(version: Version) -> set[str]:
    """Return the options that a version has."""
    return ALWAYS | {name for name, (a, b) in LIMITED.items() if a <= version < b}


def banner(version: Version) -> str:
    """Return a version as the banner spells it, such as ``v8502`` or ``v100300``."""
    major, minor = version
    return f"v{major}{minor}02" if major < 10 else f"v{major}{minor:02d}00"


def main(argv: list[str], version: Version) -> int:
    """Do what the words say, or refuse them."""
    mark = f"TensorRT.trtexec [TensorRT {banner(version)}] # {' '.join(argv)}"
    print(f"&&&& RUNNING {mark}")
    if argv[1:] == ["--help"]:
        return 0
    words = {name: value for name, _, value in (word.partition("=") for word in argv[1:])}
    unknown = [name for name in words if name not in known(version)]
    if unknown:
        print(f"[11/20/2026-12:00:00] [E] Unknown option: {unknown[0]} ", file=sys.stderr)
        print(f"&&&& FAILED {mark}")
        return 1
    transfers = version < (11, 0) and "--noDataTransfers" not in words
    transfers = transfers or "--includeDataTransfers" in words
    schema = "11x" if version >= (11, 0) else "8x_10x"
    files = {
        "--exportTimes": f"times_{'with' if transfers else 'no'}_transfers.json",
        "--exportProfile": "profile.json",
        "--exportLayerInfo": f"layers_detailed_{schema}.json",
    }
    for option, name in files.items():
        if option in words:
            shutil.copy(FIXTURES / name, words[option])
    if "--saveEngine" in words:
        assert Path(words["--onnx"]).is_file()
        Path(words["--saveEngine"]).write_text(json.dumps(argv))
    elif not Path(words["--loadEngine"]).is_file():
        print(f"[11/20/2026-12:00:00] [E] Error opening engine file: {words['--loadEngine']}")
        print(f"&&&& FAILED {mark}")
        return 1
    log = (FIXTURES / "trtexec_10.3_pass.log").read_text().splitlines()
    print("\n".join(log[1:-1]))
    print(f"&&&& PASSED {mark}")
    return 0
