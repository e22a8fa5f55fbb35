"""Fleets and jobs from CSV files, for simulations; the columns are those of the OpenB traces.

Nodes: cpu_milli, memory_mib, gpu (how many), model. Tasks: cpu_milli, memory_mib, num_gpu, gpu_milli (thousandths of
each device), gpu_spec (models that do, as in ``V100M16|V100M32``; empty: any). Other columns are not looked at.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stoker.errors import InvalidInput
from stoker.jobs.fit import WHOLE, Demand, Node, Unit
from stoker.quoting import quoted

NODE_COLUMNS = ("cpu_milli", "memory_mib", "gpu", "model")
TASK_COLUMNS = ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec")
MOST = 10**9  # thousandths of a CPU, or MiB: a petabyte
MOST_GPUS = 1024  # of one node
NO_LIMIT = 10**9  # attempts
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a file; its methods raise InvalidInput with file, line and column."""

    file: str
    line: int
    cells: dict[str, str]

    def number(self, column: str, least: int, most: int) -> int:
        """Read a whole number."""
        text = self.cells[column].strip()
        if not (text.removeprefix("-").isdigit() and text.isascii() and len(text) < 20):
            raise self.wrong(column, "is not a whole number", f"write one of {least} to {most}")
        if not least <= int(text) <= most:
            raise self.wrong(column, "is out of range", f"use {least} to {most}")
        return int(text)

    def wrong(self, column: str, problem: str, fix: str) -> InvalidInput:
        """Say what is wrong with a cell."""
        return InvalidInput(
            f"{self.file}, line {self.line}, column {column}", f"{quoted(self.cells[column])} {problem}", fix
        )


def read_nodes(path: Path) -> list[Node]:
    """Read a fleet, idle; ids count from 0 in the order of the file.

    Raises InvalidInput.
    """
    nodes: list[Node] = []
    unit = 0
    for row in _rows(path, NODE_COLUMNS):
        cpus, memory = row.number("cpu_milli", 0, MOST), row.number("memory_mib", 0, MOST) * _MIB
        count, model = row.number("gpu", 0, MOST_GPUS), row.cells["model"].strip()
        if count and not model:
            raise row.wrong("model", "names no model", "name that of the GPUs")
        units = tuple(Unit(unit + place, model, 0, WHOLE, WHOLE) for place in range(count))
        unit += count
        name = row.cells.get("sn") or f"node {len(nodes)}"
        nodes.append(Node(len(nodes), name, "", cpus, cpus, memory, memory, NO_LIMIT, NO_LIMIT, units))
    return nodes


def read_tasks(path: Path, nodes: Sequence[Node] | None = None) -> list[Demand]:
    """Read what jobs ask for; with ``nodes``, each must ask for models of which these have one.

    Raises InvalidInput.
    """
    known = None if nodes is None else sorted({unit.model for node in nodes for unit in node.units})
    return [_demand(row, known) for row in _rows(path, TASK_COLUMNS)]


def _demand(row: Row, known: list[str] | None) -> Demand:
    cpus, memory = row.number("cpu_milli", 0, MOST), row.number("memory_mib", 0, MOST) * _MIB
    gpus = row.number("num_gpu", 0, MOST_GPUS)
    if not gpus:
        return Demand(cpus, memory, device="cpu")
    milli = row.number("gpu_milli", 1, WHOLE)
    if gpus > 1 and milli < WHOLE:
        raise row.wrong("gpu_milli", f"of each of {gpus} GPUs cannot be asked for", "share one GPU, or take them whole")
    spec = row.cells["gpu_spec"].strip()
    models = tuple(dict.fromkeys(model.strip() for model in spec.split("|"))) if spec else ()
    if known is not None and models and not set(models) & set(known):
        raise row.wrong("gpu_spec", "is the model of no node", f"known: {', '.join(known[:12]) or 'none'}")
    return Demand(cpus, memory, device="gpu", gpus=gpus, gpu_types=models, gpu_milli=milli)


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[Row]:
    """The lines of a file under its header.

    Raises InvalidInput: columns are missing, a line has more or fewer cells, nothing follows, or it is no CSV in UTF-8.
    """
    empty = True
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(str(path), header, columns)
            for cells in reader:
                if cells and len(cells) != len(header):
                    problem = f"has {len(cells)} cells, the header has {len(header)}"
                    raise InvalidInput(f"{path}, line {reader.line_num}", problem, "give each line one cell a column")
                if cells:
                    empty = False
                    yield Row(str(path), reader.line_num, dict(zip(header, cells, strict=True)))
    except UnicodeDecodeError:
        raise InvalidInput(str(path), "is not text in UTF-8", "save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise InvalidInput(f"{path}, line {reader.line_num}", f"is no CSV: {error}", "save it as CSV") from None
    if empty:
        raise InvalidInput(str(path), "has a header and nothing else", "give it at least one line")


def _check_header(file: str, header: list[str], columns: tuple[str, ...]) -> None:
    if not header:
        raise InvalidInput(file, "is empty", f"give it a header with {', '.join(columns)}")
    missing = [column for column in columns if column not in header]
    if missing:
        found = ", ".join(header)
        raise InvalidInput(f"{file}, line 1", f"misses the column {', '.join(missing)}", f"found: {found:.200}")
    twice = sorted({column for column in columns if header.count(column) > 1})
    if twice:
        raise InvalidInput(f"{file}, line 1", f"has the column {', '.join(twice)} twice", "keep one of them")
