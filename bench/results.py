"""Results of a run: values by measure, metric and implementation, as tables and as JSON."""

from __future__ import annotations

import statistics


class Results:
    def __init__(self):
        self.rows, self.notes = {}, []

    def add(self, measure, metric, unit, impl, value):
        r = self.rows.setdefault((measure, metric), {"unit": unit, "values": {}})
        r["values"].setdefault(impl, []).append(value)

    def note(self, measure, impl, text):
        self.notes.append((measure, impl, text))
        print(f"  # {measure} {impl}: {text}", flush=True)

    @staticmethod
    def med(vs):
        vs = [v for v in vs or [] if v is not None]
        return statistics.median(vs) if vs else None

    def ratio(self, vals, a, b):
        x, y = vals.get(a) or [], vals.get(b) or []
        ps = [q / p for p, q in zip(x, y) if p and q is not None] if len(x) == len(y) else []
        if len(ps) > 1:
            return statistics.median(ps)
        p, q = self.med(x), self.med(y)
        return q / p if p and q is not None else None

    def table(self, names):
        out, last = [], None
        present = [n for n in names if any(n in r["values"] for r in self.rows.values())]
        extra = []
        for r in self.rows.values():
            extra += [n for n in r["values"] if n not in present and n not in extra]
        for (m, k), r in self.rows.items():
            vals = r["values"]
            cols = [n for n in present if n in vals] + [n for n in extra if n in vals]
            key = (m, tuple(cols))
            if key != last:
                out.append("")
                out.append(f"| {m} | unit | " + " | ".join(cols) + " |")
                out.append("|---|---|" + "---|" * len(cols))
                last = key
            first, cells = cols[0], []
            for n in cols:
                v = self.med(vals[n])
                s = "-" if v is None else fmt(v)
                ok = [x for x in vals[n] if x is not None]
                if len(ok) > 1 and min(ok) != max(ok):
                    s += f" [{fmt(min(ok))}..{fmt(max(ok))}]"
                rt = (
                    self.ratio(vals, first, n)
                    if n != first and r["unit"] not in ("mixed", "ratio")
                    else None
                )
                cells.append(s + (f" x{rt:.2f}" if rt is not None else ""))
            out.append(f"| {k} | {r['unit']} | " + " | ".join(cells) + " |")
        return "\n".join(out)

    def json(self):
        res = []
        for (m, k), r in self.rows.items():
            names = list(r["values"])
            res.append(
                {
                    "measure": m,
                    "metric": k,
                    "unit": r["unit"],
                    "values": r["values"],
                    "median": {n: self.med(v) for n, v in r["values"].items()},
                    "ratio_vs_first": {n: self.ratio(r["values"], names[0], n) for n in names[1:]},
                }
            )
        return res


def fmt(v):
    if isinstance(v, float):
        return (
            f"{v:.0f}"
            if abs(v) >= 100
            else f"{v:.1f}"
            if abs(v) >= 10
            else f"{v:.2f}"
            if abs(v) >= 0.1
            else f"{v:.3g}"
        )
    return str(v)


R = Results()


def q(xs, p):
    xs = sorted(xs)
    return xs[min(len(xs) - 1, int(p * len(xs)))] if xs else None
