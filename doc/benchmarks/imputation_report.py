"""Tables of reStructuredText from the records of ``bench_imputation.py``."""

from typing import NamedTuple

import numpy as np
from imputation_contestants import OURS, PEERS
from imputation_tables import PATTERNS, TABLES, UNCOUNTED

CLOSE = 1.02  # within 2 %
COVERAGE = 0.92, 0.97


class Mean(NamedTuple):
    """Of one contestant on one pair of table and pattern, averaged over seeds."""

    rmse: float
    mae: float
    seconds: float
    coverage: float


class Line(NamedTuple):
    """One pair of table and pattern; a contestant has a mean, a mark, or nothing."""

    table: str
    pattern: str
    shape: tuple[int, int]
    seeds: list[str]
    cells: dict[str, Mean | str]

    def means(self, names):
        """Return the means of those contestants that have finished."""
        cells = {name: self.cells.get(name) for name in names}
        return {name: c for name, c in cells.items() if isinstance(c, Mean)}

    def best_peer(self, measure):
        """Return the name of the best peer, and its error."""
        errors = {n: getattr(c, measure) for n, c in self.means(PEERS).items()}
        name = min(errors, key=errors.get)
        return name, errors[name]


def _average(records):
    fields = [[r.get(field, np.nan) for r in records] for field in Mean._fields]
    return Mean(*np.mean(fields, axis=1))


def _line(table, pattern, of_pair):
    """Average the records of a pair over the seeds that all its contestants have."""
    finished = {}
    for (seed, name), record in of_pair.items():
        if "rmse" in record:
            finished.setdefault(name, set()).add(seed)
    if not set(finished) & set(PEERS):
        return None
    seeds = sorted(set.intersection(*finished.values()))
    if not seeds:
        return None
    cells = {name: record.get("mark") for (_, name), record in of_pair.items()}
    for name in finished:
        cells[name] = _average([of_pair[seed, name] for seed in seeds])
    shape = next(iter(of_pair.values()))["shape"]
    return Line(table, pattern, shape, seeds, cells)


def lines_of(results):
    """Return a line for each pair, in the order of tables, and a note of what has none.

    There is none where no peer has finished, or where contestants share no seed.
    """
    by_pair = {}
    for key, record in results.items():
        table, pattern, seed, name = key.split("/")
        by_pair.setdefault((table, pattern), {})[seed, name] = record
    pairs = [(t, p) for t in TABLES for p in PATTERNS if (t, p) in by_pair]
    lines = {pair: _line(*pair, by_pair[pair]) for pair in pairs}
    left_out = [", ".join(pair) for pair in pairs if lines[pair] is None]
    return [line for line in lines.values() if line is not None], left_out


# How often a contestant is the best, compared with all peers


class Standing(NamedTuple):
    """How one contestant stands among the peers; shares are of all pairs."""

    pairs: int
    finished: int
    ratio: float
    best: float
    close: float
    ahead: float


def ratio_to_peers(line, name, measure):
    """Error of a contestant over the best of the peers; None if it has not finished."""
    cell = line.cells[name]
    if not isinstance(cell, Mean):
        return None
    return getattr(cell, measure) / line.best_peer(measure)[1]


def standing(lines, name, measure):
    """Return where a contestant stands; None if it has not finished anywhere."""
    ratios = [
        ratio_to_peers(line, name, measure)
        for line in lines
        if line.table not in UNCOUNTED and line.cells.get(name) is not None
    ]
    known = np.array([ratio for ratio in ratios if ratio is not None])
    if not known.size:
        return None
    return Standing(
        pairs=len(ratios),
        finished=len(known),
        ratio=float(np.exp(np.log(known).mean())),
        best=np.sum(known <= 1) / len(ratios),
        close=np.sum(known <= CLOSE) / len(ratios),
        ahead=float(np.mean(1 - known)),
    )


# What is printed


def rst(rows):
    """A simple table of reStructuredText; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    # A line whose first cell is empty would go on with the one before.
    lines = [
        "  ".join(
            (cell or "\\").ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def _cell(cell, measure, best):
    if not isinstance(cell, Mean):
        return _mark(cell)
    error = getattr(cell, measure)
    shown = f"{error:.3f}" if error < 1000 else f"{error:.0e}"
    return f"**{shown}**" if error == best else shown


def _mark(cell):
    """What stands for a contestant that has no figures."""
    mark = cell or ""
    return next((w for w in ("over", "failed") if mark.startswith(w)), "\u2013")


def large_tables(lines, names, measure):
    """Errors of each contestant, a table for each pattern; the least one is bold."""
    return [
        f"{pattern}\n\n{large_table(of_pattern, names, measure)}"
        for pattern in PATTERNS
        if (of_pattern := [line for line in lines if line.pattern == pattern])
    ]


def large_table(lines, names, measure):
    """Errors of each contestant on each table, of one pattern."""
    rows = [["Table", "Seeds", *names]]
    for line in lines:
        best = min(getattr(c, measure) for c in line.means(names).values())
        cells = [_cell(line.cells.get(name), measure, best) for name in names]
        rows.append([line.table, str(len(line.seeds)), *cells])
    return rst(rows)


def _label(line):
    return f"{line.table}, {line.shape[0]:,} \u00d7 {line.shape[1]}"


def seconds_table(lines, names):
    """Seconds of each contestant on each table, with the first pattern of the table."""
    rows, before = [["Table", *names]], None
    for line in lines:
        if line.table != before:
            cells = [line.cells.get(name) for name in names]
            rows.append([_label(line), *(_seconds(cell) for cell in cells)])
        before = line.table
    return rst(rows)


def _seconds(cell):
    if not isinstance(cell, Mean):
        return _mark(cell)
    return f"{cell.seconds:.0f}" if cell.seconds >= 9.95 else f"{cell.seconds:.1f}"


def summary(lines, names):
    """How contestants stand, and how many hidden values their intervals cover."""
    head = ["Contestant", "Pairs", "Finished"]
    for measure in ("RMSE", "MAE"):
        head += [f"{measure}: ratio", "best", "within 2 %"]
    rows = [[*head, "Coverage"]]
    for name in names:
        standings = [standing(lines, name, measure) for measure in ("rmse", "mae")]
        if None in standings:
            continue
        row = [name, str(standings[0].pairs), str(standings[0].finished)]
        for s in standings:
            row += [f"{s.ratio:.3f}", f"{s.best:.0%}", f"{s.close:.0%}"]
        covered = coverages(lines, name)
        rows.append([*row, f"{np.mean(covered):.3f}" if covered else "\u2013"])
    return rst(rows)


def coverages(lines, name):
    """Shares of hidden values inside the intervals of a contestant, pair by pair."""
    means = [line.means([name]).get(name) for line in lines]
    return [m.coverage for m in means if m is not None and np.isfinite(m.coverage)]


def _bar(text, reached, wanted, form=".0%"):
    """One line: what is wanted, what is reached, and whether that is enough."""
    verdict = "yes" if reached >= wanted else "NO"
    return [text, f"at least {wanted:{form}}", f"{reached:{form}}", verdict]


def _bars_of_standing(lines, name, measure, wanted):
    found = standing(lines, name, measure)
    if found is None:
        return []
    return [
        _bar(f"{name}: {measure.upper()} {text}", getattr(found, field), least)
        for field, text, least in wanted
    ]


def _time_bar(lines, name, peer):
    """Compare the times of a contestant and a peer, where both have finished."""
    both = [line.means([name, peer]) for line in lines]
    ratios = [b[name].seconds / b[peer].seconds for b in both if len(b) == 2]
    if not ratios:
        return []
    mean, longer = float(np.exp(np.log(ratios).mean())), np.sum(np.array(ratios) > 1)
    reached = f"{mean:.2f}, more on {longer} of {len(ratios)}"
    verdict = "yes" if mean <= 1 else "NO"
    return [[f"{name}: time over that of {peer}", "at most 1", reached, verdict]]


def _coverage_bar(lines, name):
    covered = coverages(lines, name)
    if not covered:
        return []
    low, high = COVERAGE
    inside = np.mean([low <= c <= high for c in covered])
    reached = f"{np.mean(covered):.3f}; {min(covered):.2f} to {max(covered):.2f}, "
    reached += f"{inside:.0%} of the pairs inside"
    verdict = "yes" if low <= np.mean(covered) <= high else "NO"
    return [
        [f"{name}: coverage of 95 % intervals", f"{low} to {high}", reached, verdict]
    ]


def _skewed_bars(lines):
    """Compare marginals with none where columns are skewed, and with the mean."""
    rows = []
    for line in lines:
        cells = line.means(["mean", "MFImputer", "MFImputer, marginals"])
        if line.table not in ("planted, lognormal", "breast cancer") or len(cells) < 3:
            continue
        mean, none, marginals = cells.values()
        better = marginals.rmse < none.rmse and marginals.mae < none.mae
        better &= marginals.rmse <= mean.rmse and marginals.mae <= mean.mae
        text = f"{line.table}, {line.pattern}: RMSE (MAE) with marginals"
        wanted = f"below {none.rmse:.3f} ({none.mae:.3f})"
        reached = f"{marginals.rmse:.3f} ({marginals.mae:.3f})"
        rows.append([text, wanted, reached, "yes" if better else "NO"])
    return rows


def bars(lines):
    """What is aimed at, and whether it is reached."""
    best, close = ("best", "best", 0.75), ("close", "within 2 % of the best peer", 0.95)
    ahead = ("ahead", "ahead of the best peer, mean", 0.05)
    rows = [["Aim", "wanted", "reached", "enough"]]
    rows += _bars_of_standing(lines, "StackingImputer", "rmse", [best, close, ahead])
    rows += _time_bar(lines, "StackingImputer", "Iterative, trees")
    for name, measure, least in (
        ("MFImputer", "rmse", 0.7),
        ("MFImputer, marginals", "rmse", 0.75),
        ("MFImputer, median", "mae", 0.7),
        ("StackingImputer, median", "mae", 0.7),
    ):
        wanted = [("close", "best or within 2 % of the best peer", least)]
        rows += _bars_of_standing(lines, name, measure, wanted)
    rows += _skewed_bars(lines)
    for name in OURS:
        rows += _coverage_bar(lines, name)
    return rst(rows)


def losses(lines, name, measure):
    """Pairs where a contestant is more than 2 % behind the best peer, worst first."""
    found = []
    for line in lines:
        if line.means([name]):
            peer, error = line.best_peer(measure)
            ratio = ratio_to_peers(line, name, measure)
            if ratio > CLOSE:
                text = f"{line.table}, {line.pattern}: {ratio - 1:.1%} behind {peer}"
                found.append((ratio, f"{text} ({error:.3f})"))
    return [text for _, text in sorted(found, reverse=True)]


def report(results):
    """All that the page takes from the results."""
    lines, left_out = lines_of(results)
    if not lines:
        return "There are no results of peers yet."
    names = [n for n in (*PEERS, *OURS) if any(line.means([n]) for line in lines)]
    parts = ["Root mean square errors", *large_tables(lines, names, "rmse")]
    parts += ["Mean absolute errors", *large_tables(lines, names, "mae")]
    parts += ["Seconds", seconds_table(lines, names)]
    parts += ["Standing", summary(lines, names), "Aims", bars(lines)]
    for name in OURS:
        measure = "mae" if "median" in name else "rmse"
        behind = losses(lines, name, measure)
        if behind:
            parts += [f"{name}, {measure.upper()}: losses", "\n".join(behind)]
    if left_out:
        parts.append(f"Left out, as contestants share no seed: {'; '.join(left_out)}")
    uncounted = "; ".join(f"{table}: {why}" for table, why in UNCOUNTED.items())
    return "\n\n".join([*parts, f"Not counted in standing and aims: {uncounted}"])
