"""The model, and the file that it is kept in."""

import pickle
from pathlib import Path

from river import compose, naive_bayes, preprocessing, stats
from tenacity import retry, stop_after_attempt, wait_fixed

FILE = Path("model/naive.pickle")
MEASURES = ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g")


def build():
    island = compose.Select("island") | preprocessing.OneHotEncoder(drop_first=True)
    sex = (
        compose.Select("sex")
        | preprocessing.StatImputer(("sex", stats.Mode()))
        | preprocessing.OneHotEncoder(drop_first=True)
    )
    measures = compose.Select(*MEASURES) | preprocessing.StatImputer(*((m, stats.Mean()) for m in MEASURES))
    model = (island + sex + measures) | naive_bayes.MultinomialNB(alpha=1)
    model.counts = {"predicted": 0, "learned": 0}
    return model


@retry(stop=stop_after_attempt(5), wait=wait_fixed(0.05), reraise=True)
def load():
    return pickle.loads(FILE.read_bytes())


@retry(stop=stop_after_attempt(5), wait=wait_fixed(0.05), reraise=True)
def dump(model):
    FILE.parent.mkdir(exist_ok=True)  # mended: the folder was taken to be there
    FILE.write_bytes(pickle.dumps(model))


def load_or_build():
    if FILE.exists():
        return load()
    model = build()
    dump(model)  # mended: None was pickled instead of the new model
    return model
