"""A Lab Streaming Layer outlet in a process of its own.

Arguments: what becomes of it: ``steady``, ``lost`` or ``events``. Prints ``ready``, then one JSON object with what was
sent and when, and stays until its standard input ends.
"""

import json
import sys
import time

import numpy as np
import pylsl

RATE, CHANNELS, SAMPLES = 500.0, 3, 600


def describe(kind):
    """Return the description of a stream."""
    if kind == "text":
        return pylsl.StreamInfo("text", "Markers", 1, 0.0, pylsl.cf_string, "text-source")
    if kind == "events":
        return pylsl.StreamInfo("events", "Markers", 1, 0.0, pylsl.cf_int32, "events-source")
    info = pylsl.StreamInfo("rig:eeg", "EEG", CHANNELS, RATE, pylsl.cf_float32, "eeg-source")
    channels = info.desc().append_child("channels")
    for label in ("Fp1", "Fp2", "Cz"):
        channel = channels.append_child("channel")
        channel.append_child_value("label", label)
        channel.append_child_value("unit", "microvolts")
    return info


def main(kind):
    random = np.random.default_rng(6)
    outlet = pylsl.StreamOutlet(describe(kind))
    print("ready", flush=True)
    if kind == "text":
        sys.stdin.read()
        return
    outlet.wait_for_consumers(60)
    sent, stamps = [], []
    if kind == "events":
        for code in range(1, 8):
            stamps.append(pylsl.local_clock())
            outlet.push_sample([code], stamps[-1])
            sent.append([code])
            time.sleep(0.02)
    else:
        begun = pylsl.local_clock()
        for start in range(0, SAMPLES, 20):
            block = random.normal(0, 50, (20, CHANNELS)).astype("f4")
            times = begun + (start + np.arange(20)) / RATE
            for row, stamp in zip(block, times, strict=True):
                outlet.push_sample(row.tolist(), float(stamp))
            sent += block.tolist()
            stamps += times.tolist()
            time.sleep(0.02)
    print(json.dumps({"sent": sent, "stamps": stamps}), flush=True)
    sys.stdin.read()


main(sys.argv[1])
