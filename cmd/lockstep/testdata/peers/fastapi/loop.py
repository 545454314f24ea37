"""River alone: predict, then learn, in a loop. Events come as JSON lines on
standard input, the seconds to run as the argument."""

import json
import sys
import time

import pipeline

events = [json.loads(line) for line in sys.stdin]
model = pipeline.build()
right = sum(predict == e["species"] for e in events for predict in [model.predict_one(e["attributes"])] if [model.learn_one(e["attributes"], e["species"])])

done, began = 0, time.perf_counter()
while time.perf_counter() - began < float(sys.argv[1]):
    for e in events:
        model.predict_one(e["attributes"])
        model.learn_one(e["attributes"], e["species"])
    done += len(events)
print(json.dumps({"right": right, "rate": done / (time.perf_counter() - began)}))
