"""Writes the traces beside it: what the real River says to each event.

The pipelines are those of pipelines.json, which a test writes from the specs
that Lockstep compiles, so the two cannot mean different things. See
../README.md for how to run it.
"""

import datetime
import json
import os
import pathlib
import random
import sys

import says

HERE = pathlib.Path(__file__).resolve().parent
PIPELINES = json.loads((HERE / "pipelines.json").read_text())
HASH_SEED = "17"  # nothing here depends on it any more; fixed all the same


# --- traces --------------------------------------------------------------------------

class Trace:
    def __init__(self, name):
        self.path, self.lines, self.seq = HERE / name, [], 0

    def write(self, line):
        self.lines.append(json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":")))

    def run(self, pipeline, events, label="species", **first):
        """Predicts each event, and learns it if it has a label. The keywords
        go into the first event's line, and `case` into every line."""
        asked, case, right = says.Asked(PIPELINES[pipeline]), first.pop("case", None), 0
        for attributes, target in events:
            self.seq += 1
            said = asked.event(attributes, target)
            line = {"seq": self.seq} | ({"case": case} if case else {}) | first
            self.write(line | {"attributes": attributes, label: target} | said)
            first = {}
            right += target is not None and said["predict"] == target
        self.write({"final": True} | ({"case": case} if case else {}) | asked.state())
        print(f"{self.path.name:35} {case or '':28} {right} of {asked.learned} right")

    def save(self):
        self.path.write_text("\n".join(self.lines) + "\n")


def penguins():
    """The shuffled penguins, in the order of the default pipeline's trace."""
    for line in (HERE.parents[2] / "testdata/penguins-shuffled.jsonl").read_text().splitlines():
        event = json.loads(line)
        if "final" not in event:
            yield event["attributes"], event["species"]


def numbers(rows):
    """(a, b, label) rows as events; a label of None is only predicted."""
    return [({"a": float(a), "b": float(b)}, label) for a, b, label in rows]


def clouds(seed, n, labels, spread=1.0, centre=0.0):
    """Random points around a place for each label."""
    r = random.Random(seed)
    place = {label: (r.uniform(-9, 9), r.uniform(-9, 9)) for label in labels}
    for _ in range(n):
        label = r.choice(labels)
        x, y = place[label]
        yield round(centre + r.gauss(x, 2) * spread, 3), round(centre + r.gauss(y, 2) * spread, 3), label


def shapes(seed, n, null=0.15):
    """Random categories; a third of the events is only predicted."""
    r = random.Random(seed)
    pick = lambda values: None if r.random() < null else r.choice(values)
    for _ in range(n):
        event = {"shape": pick(["round", "square", "long", "flat"]), "colour": pick(["red", "green", "blue", "amber"])}
        yield event, r.choice(["apple", "pear", None])


def mixed(seed, n):
    r = random.Random(seed)
    for _ in range(n):
        b = None if r.random() < 0.2 else round(r.uniform(0, 40), 1)
        event = {"a": round(r.uniform(0, 9), 2), "b": b, "colour": r.choice(["red", "green", "blue"])}
        yield event, r.choice(["apple", "pear", "plum", None])


def holes(seed, n):
    """Events of which each column is null now and then, but not in the first."""
    r = random.Random(seed)
    for i in range(n):
        event = {"a": round(r.uniform(0, 9), 2), "b": round(r.uniform(0, 40), 1), "colour": r.choice(["red", "green", "blue"])}
        yield {k: None if i and r.random() < 0.2 else v for k, v in event.items()}, r.choice(["apple", "pear", "plum", None])


def moments(seed, n):
    """Events at any second of two thousand years, with an offset now and then, and numbers that are 0 now and then."""
    r = random.Random(seed)
    begin = datetime.datetime(1000, 1, 1, tzinfo=datetime.timezone.utc)
    for i in range(n):
        zone = datetime.timezone(datetime.timedelta(minutes=r.choice([0, 0, -570, 330])))
        at = (begin + datetime.timedelta(seconds=r.randrange(2000 * 365 * 86400))).astimezone(zone)
        event = {"a": r.choice([0.0, round(r.uniform(0, 9), 2)]), "b": r.choice([0.0, round(r.uniform(-9, 9), 2)])}
        yield event | {"at": at.isoformat()}, None if i % 9 == 8 else round(at.hour + event["a"] - event["b"], 3)


def growing(seed, n):
    """Numbers that grow, so that each sum soon passes a power of two: only
    there do its last bits tell in which order it was added up."""
    r = random.Random(seed)
    for i in range(n):
        event = {k: round(r.uniform(0, 1) * 1.5**i, 3) for k in "abc"}
        yield event | {"colour": r.choice(["red", "green"])}, r.choice(["apple", "pear"])


def small(seed, n):
    """Numbers near a dummy's 1, for many classes: their sums pass many powers of two."""
    r = random.Random(seed)
    for _ in range(n):
        yield {"a": round(r.uniform(0, 1), 3), "colour": r.choice(["red", "green"])}, f"class {r.randrange(6)}"


def shapes_and_number(seed, n):
    """Categories of which new ones come up for a long time, and a number."""
    r = random.Random(seed)
    for i in range(n):
        pick = lambda: None if r.random() < 0.1 else f"v{r.randrange(2 + i // 8)}"
        event = {"a": round(r.gauss(0, 5), 2), "shape": pick(), "colour": pick()}
        yield event, r.choice(["apple", "pear", "plum", None])


def lines(seed, n, label):
    """Points around a plane that a colour shifts. The label is what a function
    makes of the height."""
    r = random.Random(seed)
    shift = {"red": -2.0, "green": 0.0, "blue": 3.0}
    for i in range(n):
        event = {"a": round(r.uniform(-3, 3), 3), "b": round(r.uniform(-3, 3), 3), "colour": r.choice(list(shift))}
        height = 2 * event["a"] - event["b"] + shift[event["colour"]] + r.gauss(0, 1)
        yield event, None if i % 9 == 8 else label(height)


def yes(height):
    return height > 0


def number(height):
    return round(height, 3)


def third(height):
    return "low" if height < -2 else "high" if height > 2 else "middle"


def without(key, events):
    return [({k: v for k, v in event.items() if k != key}, label) for event, label in events]


def pair(shape, colour, label):
    return {"shape": shape, "colour": colour}, label


# A case: its name, its spec, its events.
CASES = [
    ("onehot-random", "onehot-two-columns", list(shapes(1, 40))),
    # A null and the text None are one dummy; the columns' dummies stay apart.
    ("onehot-null-is-None", "onehot-two-columns", [
        pair(None, "None", "apple"), pair("None", None, "pear"), pair("red", "red", "pear"),
        pair(None, None, None), pair("None", "None", None), pair("red", "red", None), pair("", "", "apple"),
        pair("new", "newer", None), pair("", "", None)]),
    ("drop-first-random", "onehot-two-columns-drop-first", list(shapes(2, 40))),
    # The smallest dummy of all moves, and is always a colour's.
    ("drop-first-moves", "onehot-two-columns-drop-first", [
        pair("a", "m", "apple"), pair("b", "m", "pear"), pair("a", "k", "apple"), pair("a", "c", None),
        pair("c", "c", "pear"), pair("a", "m", None), pair("z", "a", None), pair("z", None, "pear"), pair("a", "c", None)]),
    ("modes-random", "several-modes", list(shapes(3, 40, null=0.4))),
    ("modes-begin-with-null", "several-modes", [
        pair(None, None, "apple"), pair(None, "red", "pear"), pair("long", None, None), pair("long", None, "pear"), pair(None, None, None)]),
    ("alpha-half", "alpha-half", list(mixed(4, 60))),
    ("union-order", "union-order", list(growing(12, 50))),
    ("dummies-first", "dummies-first", list(small(13, 60))),
    ("gaussian-random", "gaussian", numbers(clouds(5, 60, ["x", "y", "z"]))),
    ("gaussian-of-one", "gaussian", numbers([
        (1, 2, "x"), (1, 2, None), (3, 4, None), (5, 6, "y"), (1, 2, None), (7, 8, "y"), (1, 2, None), (6, 7, None), (6, 9, "y"), (6, 8, None)])),
    ("gaussian-constant", "gaussian", numbers([
        (1, 5, "x"), (2, 5, "x"), (3, 5, "x"), (2, 5, None), (2, 6, None), (8, 6, "y"), (9, 6, "y"), (8.5, 6, None), (2, 5, None), (2, 7, "x"), (2, 5, None)])),
    ("gaussian-far-away", "gaussian", numbers([
        (0, 0, "x"), (1, 1, "x"), (9, 9, "y"), (10, 10, "y"), (1e6, -1e6, None), (1e50, 0, None), (-1e80, 1e80, None), (5, 5, None), (20, 0.5, None)])),
    ("gaussian-huge", "gaussian", numbers([
        (1e50, -1e50, "x"), (2e50, -3e50, "x"), (-1e50, 1e50, "y"), (-2e50, 4e50, "y"), (1.5e50, -2e50, None), (0, 0, None), (-1.5e50, 2e50, None)])),
    # The squares of 1e-170 underflow to no variance, those of 1e-160 nearly.
    ("gaussian-tiny", "gaussian", numbers([
        (1e-170, 1e-160, "x"), (2e-170, 3e-160, "x"), (3e-170, 6e-160, "y"), (4e-170, 8e-160, "y"), (1.5e-170, 2e-160, None), (0, 7e-160, None), (1, 0, None)])),
    ("gaussian-ties", "gaussian", numbers([
        (-1, 0, "x"), (1, 0, "y"), (-2, 1, "x"), (2, 1, "y"), (-3, -1, "x"), (3, -1, "y"), (0, 0, None), (0, 5, None), (1e9, 0, None)])),
    ("gaussian-many-classes", "gaussian", numbers(clouds(6, 80, [f"class {i}" for i in range(12)]))),
    ("gaussian-large-offset", "gaussian", numbers(clouds(7, 40, ["x", "y"], centre=1e9))),
    ("gaussian-onehot-random", "gaussian-onehot", list(shapes_and_number(14, 90))),
    ("gaussian-onehot-many-values", "gaussian-onehot", list(shapes_and_number(15, 200))),
    ("gaussian-drop-first-random", "gaussian-onehot-drop-first", list(shapes(16, 60))),
    ("gaussian-drop-first-many-values", "gaussian-onehot-drop-first", without("a", shapes_and_number(17, 120))),
    ("gaussian-drop-first-moves", "gaussian-onehot-drop-first", [
        pair("z", "z", None), pair("b", "m", "apple"), pair("b", "m", None), pair("a", "m", None), pair("a", "a", None),
        pair("b", "m", "pear"), pair("a", "k", "apple"), pair("a", "c", None), pair("c", "c", "pear"), pair("a", "m", None),
        pair("z", "a", None), pair("z", None, "pear"), pair("a", "c", None), pair(None, None, "apple"), pair("new", "0", None)]),
    ("scaler-random", "scaler", numbers(clouds(8, 60, ["x", "y", "z"], spread=1000.0))),
    ("scaler-of-one", "scaler", numbers([(3, 4, None), (3, 4, "x"), (3, 4, None), (5, 1, None), (5, 1, "y"), (3, 4, None), (5, 1, None)])),
    ("scaler-constant", "scaler", numbers([
        (1, 5, "x"), (2, 5, "x"), (3, 5, "y"), (2, 5, None), (2, 6, None), (8, 6, "y"), (9, 6, "x"), (8.5, 6, None), (2, 5, None)])),
    ("scaler-large-offset", "scaler", numbers(clouds(9, 40, ["x", "y"], centre=1e9))),
    ("scaler-huge", "scaler", numbers([
        (1e50, -1e50, "x"), (2e50, -3e50, "x"), (-1e50, 1e50, "y"), (-2e50, 4e50, "y"), (1.5e50, -2e50, None), (0, 0, None), (-1.5e50, 2e50, None)])),
    ("scaler-without-std", "scaler-without-std", [
        ({"a": None if i % 7 == 0 else e["a"], "b": None if i % 5 == 0 else e["b"]}, label)
        for i, (e, label) in enumerate(numbers(clouds(10, 60, ["x", "y"])))]),
    ("union-in-union", "union-in-union", [
        ({"a": abs(e["a"]), "b": abs(e["b"]), "c": float(i % 11)}, label)
        for i, (e, label) in enumerate(numbers(clouds(11, 60, ["x", "y"])))]),
    ("complement", "complement", mixed(20, 120)),
    ("complement-given", "complement-given", mixed(21, 120)),
    ("previous", "previous", holes(22, 120)),
    ("constants", "constants", holes(23, 120)),
    ("polynomial-given", "polynomial-given", [
        ({"a": e["a"], "b": e["b"], "c": float(i % 11)}, label)
        for i, (e, label) in enumerate(numbers(clouds(24, 80, ["x", "y", "z"])))]),
]


LINEAR = [
    *((name, yes) for name in [
        "logreg-given", "logreg-hinge", "perceptron", "perceptron-given", "pa-given", "target-agg-boolean"]),
    *((name, number) for name in [
        "pa-regressor", "pa-regressor-given", "linreg-rmsprop-quantile", "linreg-adagrad-huber", "linreg-absolute",
        "linreg-quantile", "target-agg-stats", "statistic-var", "max-abs", "normalizer", "normalizer-one", "ordinal",
        "ordinal-given"]),
    *((name, third) for name in ["ovr-default", "ovr-hinge", "softmax-default", "softmax-given", "bernoulli-given"]),
    ("polynomial", number),
    ("renamed", yes),
]


def main():
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        os.execv(sys.executable, [sys.executable, *sys.argv])
    for name in ["penguins-gaussian", "gaussian-raw"]:
        trace = Trace(f"{name}.jsonl")
        trace.run(name, penguins())
        trace.save()
    trace = Trace("edge.jsonl")
    for name, spec, events in CASES:
        trace.run(spec, events, case=name, reset=True, spec=spec)
    trace.save()
    trace = Trace("functions.jsonl")
    trace.run("functions", moments(30, 150), label="y")
    trace.save()
    trace = Trace("linear.jsonl")
    for i, (name, label) in enumerate(LINEAR):
        trace.run(name, lines(100 + i, 150, label), label="y", case=name, reset=True, spec=name)
    trace.save()


if __name__ == "__main__":
    main()
