"""The machine code of GoLU's CUDA kernels, read without a GPU: what an element costs, and what memory leaves time for.

    python tools/machine_code.py [--architectures 80 90 100] [--vectors 2] [--streaming] [--json FILE]

NVRTC compiles, as CuPy would, and nvdisasm (the package nvidia-cuda-nvdisasm) takes apart. Counted is the path of
whole 16-byte vectors. A share near 1 means that arithmetic and not memory would bound the kernel.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from golu_core.activation.compute import kernel as cuda
from golu_core.activation.compute.kernel import KERNEL_DTYPES, kernel_name, kernel_source
from measuring import Row, markdown

_VECTOR_BYTES = 16


class Card(NamedTuple):
    """What a card can do: published numbers of the cards, and the CUDA C++ Programming Guide's table of throughputs.

    Attributes:
        name: The name of the graphics card.
        processors: streaming multiprocessors.
        clock: boost clock in Hz.
        bandwidth: The bandwidth of its memory, in bytes per second.
        special: special functions (MUFU) a clock and multiprocessor.
    """

    name: str
    processors: int
    clock: float
    bandwidth: float
    special: int = 16


CARDS = {
    80: Card("A100 SXM 80 GB", 108, 1.41e9, 2.039e12),
    90: Card("H100 SXM", 132, 1.98e9, 3.35e12),
    100: Card("B200", 148, 1.98e9, 8.0e12),
}


class MachineCode(NamedTuple):
    """One kernel's path of a whole vector, in instructions a thread."""

    instructions: int
    special: int
    registers: int
    spilled_bytes: int


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", type=int, nargs="+", default=sorted(CARDS), choices=sorted(CARDS))
    parser.add_argument("--vectors", type=int, default=1, choices=(1, 2, 4), help="vectors that a thread moves")
    parser.add_argument("--streaming", action="store_true", help="moved past the cache")
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    cuda.moves = cuda.TransferStyle(flags.vectors, flags.streaming)
    rows = [row for architecture in flags.architectures for row in rows_of(architecture)]
    print(markdown(rows))
    if flags.json:
        command = "python tools/machine_code.py " + " ".join(sys.argv[1:])
        flags.json.write_text(json.dumps({"command": command, "rows": rows}, indent=1) + "\n")


def rows_of(architecture: int) -> list[Row]:
    """Each vector kernel on an architecture."""
    card = CARDS[architecture]
    found = machine_code(architecture)
    rows: list[Row] = []
    for dtype, name in KERNEL_DTYPES.items():
        for direction, tensors in (("forward", 2), ("backward", 3)):
            code = found[kernel_name(direction, dtype, aligned=True)]
            elements = _VECTOR_BYTES // dtype.itemsize * cuda.moves.vectors
            rate = card.bandwidth / (tensors * dtype.itemsize)
            rows.append(
                {
                    "card": card.name,
                    "kernel": f"{direction} {name}",
                    "instructions_an_element": code.instructions / elements,
                    "special_an_element": code.special / elements,
                    "bytes_an_element": tensors * dtype.itemsize,
                    "registers": code.registers,
                    "spilled_bytes": code.spilled_bytes,
                    # four warps of 32 threads begin an instruction each clock
                    "share_of_issue": rate * code.instructions / elements / (card.processors * 128 * card.clock),
                    "share_of_special": rate * code.special / elements / (card.processors * card.special * card.clock),
                }
            )
    return rows


def machine_code(architecture: int) -> dict[str, MachineCode]:
    """Each vector kernel of the source for an architecture such as 90."""
    binary, log = _compiled(architecture)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "golu.cubin"
        path.write_bytes(binary)
        done = subprocess.run([_disassembler(), "-c", str(path)], capture_output=True, text=True, check=True)
    found = {}
    for dtype in KERNEL_DTYPES:
        for direction in ("forward", "backward"):
            kernel = kernel_name(direction, dtype, aligned=True)
            instructions = _vector_path(done.stdout, kernel)
            special = sum("MUFU" in instruction for instruction in instructions)
            found[kernel] = MachineCode(len(instructions), special, *_resources(log, kernel))
    return found


def _vector_path(text: str, kernel: str) -> list[str]:
    """The instructions from a kernel's entry to its end after the 16-byte store, on either side of its first branch."""
    body = text[text.index(f".text.{kernel}:") :]
    body = body[: body.find("\n//-----") if "\n//-----" in body else None]
    lines = re.findall(r"^(\.L_x_\d+):|/\*[0-9a-f]{4,}\*/\s+(.*?);", body, re.MULTILINE)
    labels = {label: n for n, (label, _) in enumerate(lines) if label}
    fork = next(n for n, (_, instruction) in enumerate(lines) if "BRA" in instruction)
    target = labels[re.search(r"\.L_x_\d+", lines[fork][1])[0]]  # type: ignore[index]
    prefix = [instruction for _, instruction in lines[: fork + 1] if instruction]
    for start in (fork + 1, target):
        end = next(
            n for n in range(start, len(lines)) if re.match(r"(@\w+ )?EXIT", lines[n][1]) and "@" not in lines[n][1]
        )
        path = [instruction for _, instruction in lines[start : end + 1] if instruction]
        if any(re.match(r"STG\.E\.(EF\.)?128", instruction) for instruction in path):
            return prefix + path
    raise SystemExit(f"{kernel} has no path with a 16-byte store")


def _resources(log: str, kernel: str) -> tuple[int, int]:
    """Registers, and bytes of spilled stores and loads, of the compiler's log."""
    part = log[log.index(f"Compiling entry function '{kernel}'") :]
    spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part)
    registers = re.search(r"Used (\d+) registers", part)
    assert spills is not None and registers is not None, f"the compiler says nothing of {kernel}"
    return int(registers[1]), int(spills[1]) + int(spills[2])


def _compiled(architecture: int) -> tuple[bytes, str]:
    from cuda.bindings import nvrtc

    _, program = nvrtc.nvrtcCreateProgram(kernel_source().encode(), b"golu.cu", 0, [], [])
    options = [option.encode() for option in cuda.compile_options()]
    options += [f"--gpu-architecture=sm_{architecture}".encode(), b"--ptxas-options=-v"]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    log = _text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).decode()
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, log
    return _text(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program), log


def _text(size_of: Any, get: Any, program: Any) -> bytes:
    _, size = size_of(program)
    buffer = b" " * max(size, 2)  # NVRTC writes into it, and bytes of length 1 are shared by the whole interpreter
    get(program, buffer)
    return buffer


def _disassembler() -> str:
    found = importlib.util.find_spec("nvidia")
    folders = list(found.submodule_search_locations or ()) if found is not None else []
    programs = [path for folder in folders for path in Path(folder).glob("*/bin/nvdisasm")]
    if not programs:
        raise SystemExit("nvdisasm is missing: pip install nvidia-cuda-nvdisasm")
    return str(programs[0])


if __name__ == "__main__":
    main()
