"""Busy times of the units as a trace that Perfetto and chrome://tracing open.

The Trace Event Format of Chrome: complete events ("X") in one thread for each unit. Its microseconds are
clock cycles here.
"""

import json

from compressor.text_file import write_text
from sim.activity import TRACKS

PRODUCTS = "product"
"""Thread with one slice for each product; those of the array are its tiles."""


def trace_events(times, *, name="accelerator"):
    """Events of a trace.

    Parameters
    ----------
    times : iterable of sim.activity.BusyTime
    name : str
        Of the process.

    Returns
    -------
    list of dict
    """
    times = list(times)
    threads = {unit: index for index, unit in enumerate((PRODUCTS, *TRACKS))}
    events = [_metadata("process_name", 0, {"name": f"{name}: 1 clock cycle is shown as 1 us"})]
    for unit, index in threads.items():
        events += [_metadata("thread_name", index, {"name": unit}),
                   _metadata("thread_sort_index", index, {"sort_index": index})]
    slices = [(PRODUCTS, begin, end, step, {"sequence": sequence})
              for begin, end, step, sequence in products(times)]
    slices += [(time.unit, time.begin, time.end, time.step,
                {"sequence": time.sequence} | ({"detail": time.detail} if time.detail else {}))
               for time in times]
    events += [{"ph": "X", "name": step, "cat": unit, "pid": 0, "tid": threads[unit], "ts": begin,
                "dur": end - begin, "args": arguments} for unit, begin, end, step, arguments in slices]
    return events


def products(times):
    """Products of the array: (begin, end, step, sequence), from the first tile to the last one's end."""
    found = []
    for time in times:
        if time.unit != "array":
            continue
        if found and found[-1][2:] == (time.step, time.sequence):
            found[-1] = (found[-1][0], time.end, *found[-1][2:])
        else:
            found.append((time.begin, time.end, time.step, time.sequence))
    return found


def write_trace(times, path):
    """Write a trace file (aside, then renamed).

    Parameters
    ----------
    times : iterable of sim.activity.BusyTime
    path : Path
    """
    content = {"traceEvents": trace_events(times), "displayTimeUnit": "ns",
               "otherData": {"time unit": "1 us is 1 clock cycle, counted from the start of the run"}}
    write_text(path, json.dumps(content))


def _metadata(name, thread, arguments):
    return {"ph": "M", "name": name, "pid": 0, "tid": thread, "args": arguments}
