"""The app that many begin with: uvicorn app:app"""

from contextlib import asynccontextmanager

from fastapi import FastAPI
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer

import pipeline
from schemas import Attributes, LearnRequest, LearnResponse, PredictResponse

# Mended: the watcher is not started, for it races even with one worker: it
# loads what this process is just writing, and puts an older model back.
WATCH = False


class Reload(FileSystemEventHandler):
    def __init__(self, app):
        self.app = app

    def on_modified(self, event):
        self.app.state.model = pipeline.load()


@asynccontextmanager
async def lifespan(app):
    app.state.model = pipeline.load_or_build()
    observer = Observer()
    if WATCH:
        observer.schedule(Reload(app), str(pipeline.FILE.parent))
        observer.start()
    yield
    if WATCH:
        observer.stop()
        observer.join()
    pipeline.dump(app.state.model)


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
def predict(attributes: Attributes) -> PredictResponse:
    model = app.state.model
    species = model.predict_one(attributes.model_dump())
    model.counts["predicted"] += 1
    return PredictResponse(species=species, **model.counts)


@app.post("/learn")
def learn(request: LearnRequest) -> LearnResponse:
    model = app.state.model
    x = request.attributes.model_dump()
    before = model.predict_one(x)
    model.learn_one(x, request.species)
    model.counts["learned"] += 1
    pipeline.dump(model)
    return LearnResponse(status=f"learned {request.species}. Initially predicted {before}", **model.counts)
