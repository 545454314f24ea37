"""What the real River says, event by event. generate.py writes traces with it,
and the tests ask it about random events: a line of JSON in, a line out.

    {"pipeline": "compose.Pipeline(…)"}            begins with a new model
    {"attributes": {…}, "label": "a"}              predicts, and learns unless the label is null
    {"state": true}                                what was learned
"""

import datetime
import json
import math
import sys
import types

from river import base, compose, dummy, feature_extraction, linear_model, multiclass, naive_bayes, optim, preprocessing, stats

sys.setrecursionlimit(10_000)


# --- a pipeline ----------------------------------------------------------------------

def select(*columns):
    """River keeps the names in a set, whose order follows the hash seed: this
    fixes it to the declared one."""
    step = compose.Select(*columns)
    step.keys = dict.fromkeys(columns)
    return step


def named(kind, prefix):
    """Steps of one class get names of their own."""
    return lambda *steps: kind(*[(f"{prefix}{i}", step) for i, step in enumerate(steps)])


def moment(text):
    return datetime.datetime.fromisoformat(text).astimezone(datetime.timezone.utc)


# The declared functions, as somebody writes them in Python.
FUNCTIONS = types.SimpleNamespace(
    minute=lambda x: moment(x).minute, hour=lambda x: moment(x).hour, weekday=lambda x: moment(x).weekday(),
    day=lambda x: moment(x).day, month=lambda x: moment(x).month,
    log1p=lambda x: math.log1p(max(x, 0)), clip=lambda x, least, most: min(max(x, least), most),
    ratio=lambda x, y: x / y if y else 0.0, product=lambda x, y: x * y, difference=lambda x, y: x - y)


# What pipelines.json is written in: River, but for the order and the names above.
NAMES = {
    "compose": types.SimpleNamespace(
        Select=select, Discard=compose.Discard, Prefixer=compose.Prefixer, Suffixer=compose.Suffixer,
        Renamer=compose.Renamer, FuncTransformer=compose.FuncTransformer,
        Pipeline=named(compose.Pipeline, "step"), TransformerUnion=named(compose.TransformerUnion, "branch")),
    "functions": FUNCTIONS,
    "dummy": dummy, "feature_extraction": feature_extraction, "linear_model": linear_model, "multiclass": multiclass,
    "naive_bayes": naive_bayes, "optim": optim, "preprocessing": preprocessing, "stats": stats,
}


def pipeline(expression):
    return eval(expression, {"__builtins__": {}, "True": True, "False": False} | NAMES)


# --- what a model has learned --------------------------------------------------------

def leaves(model):
    """Every estimator of a pipeline, through unions and nested pipelines."""
    if isinstance(model, compose.Pipeline):
        for inner in model.steps.values():
            yield from leaves(inner)
    elif isinstance(model, compose.TransformerUnion):
        for inner in model.transformers.values():
            yield from leaves(inner)
    else:
        yield model


def gaussians(model):
    return {c: {f: {"n": g.n_samples, "mean": g.mu, "s": g._var._S} for f, g in fs.items()} for c, fs in model.gaussians.items()}


# Attributes whose last bits hang on a transcendental function.
NEAR = {"weights"}


def attributes(model):
    """The attributes that hold counts and weights, by class or feature."""
    out = {}
    for key, value in vars(model).items():
        if isinstance(value, dict):
            try:
                out[f"{key}_near" if key in NEAR else key] = json.loads(json.dumps(value, allow_nan=False))
            except TypeError:
                pass  # it holds objects
    return out


def state(model):
    """The model's state, by River's names."""
    out = {}
    scaled = any(isinstance(s, preprocessing.StandardScaler) for s in leaves(model))
    for s in leaves(model):
        match s:
            case preprocessing.StatImputer():
                for col, stat in s.stats.items():
                    if isinstance(stat, stats.Mean):
                        out.setdefault("means", {})[col] = {"n": stat.n, "mean": stat.get()}
                    elif isinstance(stat, stats.Mode):
                        out[f"{col}_mode"] = {"counts": dict(stat.counts), "mode": stat.get()}
            case preprocessing.PreviousImputer():
                out["latest"] = dict(s._latest)
            case preprocessing.OneHotEncoder():
                for col in s.values:
                    out.setdefault("onehot", {})[col] = [k for k in s._zero_dict if k.startswith(f"{col}_")]
            case preprocessing.StandardScaler():
                for col, n in s.counts.items():
                    out.setdefault("scaler", {})[col] = {"n": n, "mean": s.means[col], "var": s.vars.get(col, 0.0)}
            case naive_bayes.GaussianNB():
                dummies = any(isinstance(t, preprocessing.OneHotEncoder) for t in leaves(model))
                out["class_counts"] = dict(s.class_counts)
                # Behind a scaler the last bits hang on the C library: README.md.
                # Those of dummies follow from counts, and River's from a running mean.
                out["gaussians_near" if scaled or dummies else "gaussians"] = gaussians(s)
            case compose.Select():
                pass
            case _:
                out |= attributes(s)
                if isinstance(s, naive_bayes.MultinomialNB):
                    out["n_terms"] = s.n_terms
    return out


# --- one model, asked event by event -------------------------------------------------

class Asked:
    def __init__(self, expression):
        self.model, self.learned = pipeline(expression), 0

    def event(self, event, label):
        """What River says to an event, before it learns it."""
        said = {"predict": self.model.predict_one(event)}
        if not isinstance(list(leaves(self.model))[-1], base.Regressor):
            proba = self.model.predict_proba_one(event)
            said["proba"] = {str(k).lower() if isinstance(k, bool) else k: p for k, p in proba.items()}  # in JSON a key is a text
        if label is not None:
            self.model.learn_one(event, label)
            self.learned += 1
        return said

    def state(self):
        return {"learned": self.learned} | state(self.model)


def main():
    asked = None
    for line in sys.stdin:
        request = json.loads(line)
        if "pipeline" in request:
            asked, answer = Asked(request["pipeline"]), {}
        elif "state" in request:
            answer = asked.state()
        else:
            answer = asked.event(request["attributes"], request["label"])
        print(json.dumps(answer, ensure_ascii=False, allow_nan=False, separators=(",", ":")), flush=True)


if __name__ == "__main__":
    main()
