"""How well do the learned codes retrieve, beside codes that take no learning?

The AID protocol (see ../shared/data/README.md): the coarse features are the primary source, the
fine ones the second; 9,000 database tiles are ranked for 1,000 query tiles, which no method ever
sees in training. Only AHCL sees labels. Figures are means over the seeds.

Every run is saved as it ends, so that the next call goes on from there; runs of code or settings
that have changed since are done again.

    python benchmarks/quality_aid.py --methods baselines mrhash ahcl --bits 16 32 64 --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from rshash.ahcl import AhclSettings, train_ahcl
from rshash.baselines import fit_itq, fit_lsh, fit_pca_sign, fit_sign_of_dimensions
from rshash.codes import pack
from rshash.evaluation import ranking_quality
from rshash.labels import TileLabels
from rshash.mrhash import MrHashSettings, train_mrhash
from rshash.rankings import AsymmetricRanking, CodeRanking, FeatureRanking, Ranking
from rshash.report_text import table
from rshash.scaling import FeatureScaling

ROOT = Path(__file__).parents[1]

Rankings = dict[str, Ranking]
"""By what is compared: one kind for most methods, two for AHCL."""


class Aid:
    """Features and labels of AID, split into queries and database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rows = pq.read_table(folder / "aid-images-96px.parquet", columns=["label", "split"])
        labels = rows["label"].to_numpy().astype(int)
        self.is_query = np.array(rows["split"].to_pylist()) == "query"
        self.query_labels, self.labels = labels[self.is_query], labels[~self.is_query]

    @cached_property
    def _features(self) -> dict[str, np.ndarray]:
        stored = np.load(self.folder / "aid-features.npz")
        return {
            source: (stored[source] * stored[f"{source}_scale"]).astype(np.float32)
            for source in ("coarse", "fine")
        }

    def database(self, source: str) -> np.ndarray:
        return self._features[source][~self.is_query]

    def queries(self, source: str) -> np.ndarray:
        return self._features[source][self.is_query]

    def scaled(self, source: str) -> tuple[np.ndarray, np.ndarray]:
        """Features of the queries and of the database, centred and scaled."""
        scaling = FeatureScaling.fit(self.database(source))
        return scaling.apply(self.queries(source)), scaling.apply(self.database(source))

    def measure(self, ranking: Ranking) -> dict[str, float]:
        found = ranking_quality(ranking, self.query_labels, self.labels)
        return {"full": found.mean_ap, **{f"at {n}": ap for n, ap in found.mean_ap_at.items()}}


@dataclass(frozen=True)
class Method:
    """One line of the table, or two where a training gives two rankings.

    `run` returns the rankings and the seconds that training took.
    """

    name: str
    group: str
    module: str
    run: Callable[[Aid, int, int], tuple[Rankings, float]]
    settings: Callable[[int, int], Any] = lambda bits, seed: None
    has_bits: bool = True
    has_seed: bool = True


def float_cosine(source: str) -> Method:
    def run(aid: Aid, bits: int, seed: int) -> tuple[Rankings, float]:
        return {"": FeatureRanking(*aid.scaled(source))}, 0.0

    name = f"float cosine, 1024 dimensions, {source}"
    return Method(name, "baselines", "rankings", run, has_bits=False, has_seed=False)


def baseline(
    name: str, source: str, fit: Callable[[np.ndarray, int, int], Any], **kinds: bool
) -> Method:
    def run(aid: Aid, bits: int, seed: int) -> tuple[Rankings, float]:
        queries, database = aid.scaled(source)
        start = time.perf_counter()
        hashed = fit(database, bits, seed)
        seconds = time.perf_counter() - start
        return {"": CodeRanking(hashed.encode(queries), hashed.encode(database))}, seconds

    return Method(f"{name}, {source}", "baselines", "baselines", run, **kinds)


def outputs_of(trained: Any, features: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return trained.head(torch.from_numpy(trained.scaling.apply(features))).numpy()


def mrhash(name: str, sources: Sequence[str], settings: Callable[[int, int], Any]) -> Method:
    def run(aid: Aid, bits: int, seed: int) -> tuple[Rankings, float]:
        features = [aid.database(source) for source in sources]
        start = time.perf_counter()
        trained = train_mrhash(features, settings(bits, seed))
        seconds = time.perf_counter() - start
        primary = sources[0]
        sides = aid.queries(primary), aid.database(primary)
        return {"": CodeRanking(*(pack(outputs_of(trained, side)) for side in sides))}, seconds

    return Method(name, "mrhash", "mrhash", run, settings)


def mrhash_settings(bits: int, seed: int) -> MrHashSettings:
    return MrHashSettings(bits=bits, seed=seed)


def paper_settings(bits: int, seed: int) -> MrHashSettings:
    return replace(MrHashSettings.paper(bits=bits), seed=seed)


def ahcl_settings(bits: int, seed: int) -> AhclSettings:
    return AhclSettings(bits=bits, seed=seed)


def ahcl(source: str) -> Method:
    def run(aid: Aid, bits: int, seed: int) -> tuple[Rankings, float]:
        tile_ids, classes = map(str, range(len(aid.labels))), np.unique(aid.labels)
        one_hot = aid.labels[:, None] == classes
        labels = TileLabels(tuple(tile_ids), tuple(map(str, classes)), one_hot)
        features = aid.database(source)
        start = time.perf_counter()
        trained = train_ahcl(features, labels, ahcl_settings(bits, seed))
        seconds = time.perf_counter() - start
        outputs = outputs_of(trained, aid.queries(source))
        symmetric = CodeRanking(pack(outputs), pack(outputs_of(trained, features)))
        rankings = {"symmetric": symmetric, "asymmetric": AsymmetricRanking(outputs, trained.codes)}
        return rankings, seconds

    return Method(f"AHCL, {source}", "ahcl", "ahcl", run, ahcl_settings)


BOTH, ALONE, PAPER = "MrHash, coarse + fine", "MrHash, coarse alone", "MrHash, paper's settings"
METHODS = (
    float_cosine("coarse"),
    float_cosine("fine"),
    baseline(
        "sign of 1024 dimensions",
        "coarse",
        lambda train, bits, seed: fit_sign_of_dimensions(train),
        has_bits=False,
        has_seed=False,
    ),
    baseline("LSH", "coarse", fit_lsh),
    baseline(
        "PCA-sign", "coarse", lambda train, bits, seed: fit_pca_sign(train, bits), has_seed=False
    ),
    baseline("ITQ", "coarse", lambda train, bits, seed: fit_itq(train, bits, seed=seed)),
    baseline("ITQ", "fine", lambda train, bits, seed: fit_itq(train, bits, seed=seed)),
    mrhash(BOTH, ["coarse", "fine"], mrhash_settings),
    mrhash(ALONE, ["coarse"], mrhash_settings),
    mrhash(PAPER, ["coarse", "fine"], paper_settings),
    ahcl("fine"),
    ahcl("coarse"),
)

TARGETS = {
    BOTH: {16: {"full": 0.55, "at 20": 0.60}, 32: {"full": 0.63, "at 20": 0.66},
           64: {"full": 0.66, "at 20": 0.69}},
    "AHCL, fine, symmetric": {16: {"full": 0.92}, 32: {"full": 0.94}, 64: {"full": 0.955}},
    "AHCL, fine, asymmetric": {16: {"full": 0.93}, 32: {"full": 0.955}, 64: {"full": 0.965}},
}  # fmt: skip
SECONDS = {BOTH: 300.0, "AHCL, fine, symmetric": 60.0}
"""Most seconds of training at 64 bits, on two cores."""


def identity(method: Method, bits: int, seed: int) -> str:
    """Changes with the settings and with the code of every module that the method imports."""
    digest = hashlib.sha256(repr(method.settings(bits, seed)).encode())
    digest.update(_imported_code(method.module).encode())
    return digest.hexdigest()[:16]


@cache
def _imported_code(module: str) -> str:
    modules = _imported({"evaluation", "rankings", module})
    return "\n".join(_code_of(one) for one in sorted(modules))


def _imported(modules: set[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            names = (
                name
                for node in ast.walk(ast.parse(_path(module).read_text()))
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rshash")
                for name in (
                    [node.module[7:]] if "." in node.module else [a.name for a in node.names]
                )
            )
            waiting += [name for name in names if _path(name).exists()]
    return found


def _code_of(module: str) -> str:
    """Its statements, without comments and docstrings."""
    tree = ast.parse(_path(module).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [
                statement
                for statement in node.body
                if not isinstance(getattr(statement, "value", None), ast.Constant)
                or not isinstance(statement, ast.Expr)
            ] or [ast.Pass()]
    return ast.unparse(tree)


def _path(module: str) -> Path:
    path = ROOT / "rshash" / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def run_all(
    aid: Aid, methods: Sequence[Method], bits: Sequence[int], seeds: Sequence[int], results: Path
) -> dict[str, dict[str, Any]]:
    """Runs what the results lack, and returns all that was asked for."""
    wanted = [
        (method, length, seed)
        for method in methods
        for length in (bits if method.has_bits else bits[-1:])
        for seed in (seeds if method.has_seed else seeds[:1])
    ]
    # Before the first run, so that they are of the modules as loaded, whatever is edited meanwhile.
    identities = [identity(*run) for run in wanted]
    asked = {}
    for number, ((method, length, seed), run_id) in enumerate(
        zip(wanted, identities, strict=True), 1
    ):
        key = f"{method.name}|{length if method.has_bits else ''}|{seed if method.has_seed else ''}"
        run, outcome = _saved(results).get(key, {}), "saved"
        if run.get("identity") != run_id:
            rankings, seconds = method.run(aid, length, seed)
            outcome = f"{seconds:.1f} s"
            run = {
                "identity": run_id,
                "method": method.name,
                "bits": length if method.has_bits else None,
                "seed": seed if method.has_seed else None,
                "threads": torch.get_num_threads(),
                "seconds": round(seconds, 2),
                "mean AP": {kind: aid.measure(ranking) for kind, ranking in rankings.items()},
            }
            # Read again: another call may have saved runs meanwhile.
            _write(results, {"runs": {**_saved(results), key: run}})
        asked[key] = run
        figures = "; ".join(
            f"{kind} {found['full']:.3f} / {found['at 20']:.3f}".strip()
            for kind, found in run["mean AP"].items()
        )
        print(f"[{number}/{len(wanted)}] {key}: {figures} ({outcome})", file=sys.stderr, flush=True)
    return asked


def _saved(path: Path) -> dict[str, dict[str, Any]]:
    return json.loads(path.read_text())["runs"] if path.exists() else {}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1))
    part.replace(path)


@dataclass(frozen=True)
class Line:
    """The runs of one line of the table at one length, over the seeds."""

    figures: dict[str, list[float]]
    seconds: list[float]

    def mean(self, figure: str) -> float:
        return float(np.mean(self.figures[figure]))

    def text(self, figure: str) -> str:
        values = self.figures[figure]
        spread = f" ±{np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        return f"{np.mean(values):.3f}{spread}"


def summarise(runs: dict[str, dict[str, Any]], longest: int) -> dict[str, dict[int, Line]]:
    lines: dict[str, dict[int, Line]] = {}
    for run in runs.values():
        for kind, found in run["mean AP"].items():
            name = f"{run['method']}, {kind}" if kind else run["method"]
            line = lines.setdefault(name, {}).setdefault(run["bits"] or longest, Line({}, []))
            for figure, value in found.items():
                line.figures.setdefault(figure, []).append(value)
            line.seconds.append(run["seconds"])
    return lines


def print_table(lines: dict[str, dict[int, Line]], bits: Sequence[int]) -> None:
    rows = []
    for name, of_bits in lines.items():
        found = [of_bits.get(length) for length in bits]
        cells = [f"{line.text('full')} / {line.text('at 20')}" if line else "" for line in found]
        rows.append([name, *cells, f"{np.mean(of_bits[bits[-1]].seconds):.1f}"])
    head = [f"{length} bit: full / at 20" for length in bits]
    print(table(["codes or features, from", *head, f"seconds, {bits[-1]} bit"], rows), end="\n\n")


def print_targets(lines: dict[str, dict[int, Line]]) -> None:
    rows = []
    for name, of_bits in TARGETS.items():
        for length, targets in of_bits.items():
            line = lines.get(name, {}).get(length)
            for figure, target in targets.items() if line else ():
                found = line.mean(figure)
                met = "met" if found >= target else f"missed by {target - found:.3f}"
                rows.append([f"{name}, {length} bit, {figure}", f"{target}", f"{found:.3f}", met])
    for name, most in SECONDS.items():
        line = lines.get(name, {}).get(64)
        if line:
            found = float(np.mean(line.seconds))
            met = "met" if found <= most else f"missed by {found - most:.0f} s"
            rows.append([f"{name}, 64 bit, seconds of training", f"{most:g}", f"{found:.1f}", met])
    for length, both in lines.get(BOTH, {}).items():
        alone = lines.get(ALONE, {}).get(length)
        for figure in ("full", "at 20") if alone else ():
            gain = both.mean(figure) - alone.mean(figure)
            met = "met" if gain > 0 else "missed"
            rows.append(
                [f"gain by the fine source, {length} bit, {figure}", "> 0", f"{gain:+.3f}", met]
            )
    if rows:
        print(table(["target", "wanted", "found", ""], rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--methods", nargs="+", default=["baselines", "mrhash", "ahcl"],
                        help="groups, or beginnings of names in the table")  # fmt: skip
    parser.add_argument("--bits", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "quality_aid.json")
    options = parser.parse_args()
    folder = options.data / "aid"
    if not (folder / "aid-features.npz").exists():
        print(f"The AID features are not in {folder}: --data names the folder that holds aid/; "
              "nothing was measured.")  # fmt: skip
        return
    chosen = tuple(options.methods)
    methods = [m for m in METHODS if m.group in chosen or m.name.startswith(chosen)]
    if not methods:
        sys.exit(f"No such methods: {', '.join(chosen)}. There are {[m.name for m in METHODS]}.")
    bits = sorted(options.bits)
    runs = run_all(Aid(folder), methods, bits, options.seeds, options.json)
    lines = summarise(runs, bits[-1])
    print(
        f"Mean average precision over the full ranking / over the first 20, ties in expectation; "
        f"mean ± standard deviation over seeds {options.seeds}.\n"
    )
    print_table(lines, bits)
    print_targets(lines)


if __name__ == "__main__":
    main()
