"""Reads a trace with Perfetto's own schema (PyPI's perfetto) and prints what is in it as JSON."""

import collections
import json
import sys

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import BuiltinClock, Trace, TrackEvent

trace = Trace()
trace.ParseFromString(open(sys.argv[1], "rb").read())
tracks = {}
stacks = collections.defaultdict(list)
slices = []
counters = collections.defaultdict(int)
marks = []
flows = collections.defaultdict(list)
clocks = set()
events = []
for packet in trace.packet:
    assert packet.trusted_packet_sequence_id, "a packet without its sequence"
    if packet.HasField("track_descriptor"):
        assert packet.track_descriptor.uuid not in tracks, "a track that is described twice"
        tracks[packet.track_descriptor.uuid] = packet.track_descriptor
    if packet.HasField("track_event"):
        assert packet.timestamp_clock_id == BuiltinClock.BUILTIN_CLOCK_MONOTONIC
        event = packet.track_event
        assert event.track_uuid in tracks, "an event before its track"
        events.append((packet.timestamp, event))
# By time, and at one instant as they are written, as Perfetto takes them.
for at, event in sorted(events, key=lambda e: e[0]):
    track = tracks[event.track_uuid]
    name = track.name or track.process.process_name
    if event.type == TrackEvent.TYPE_SLICE_BEGIN:
        stacks[event.track_uuid].append((event.name, at))
        for flow in list(event.flow_ids) + list(event.terminating_flow_ids):
            flows[flow].append([event.name, name, flow in event.terminating_flow_ids])
    elif event.type == TrackEvent.TYPE_SLICE_END:
        begun = stacks[event.track_uuid].pop()
        slices.append([name, begun[0], begun[1], at - begun[1]])
        assert len(stacks[event.track_uuid]) == 0, f"slices of {name} lie over each other"
    elif event.type == TrackEvent.TYPE_COUNTER:
        assert track.HasField("counter")
        counters[name] += 1
    elif event.type == TrackEvent.TYPE_INSTANT:
        marks.append([name, event.name])
    else:
        raise AssertionError(f"an event of type {event.type}")
assert not any(stacks.values()), "a slice without an end"
snapshots = [p.clock_snapshot.primary_trace_clock for p in trace.packet if p.HasField("clock_snapshot")]
assert snapshots == [BuiltinClock.BUILTIN_CLOCK_MONOTONIC], snapshots
parents = {t.name: tracks[t.parent_uuid].process.process_name for t in tracks.values() if t.parent_uuid}
json.dump({"slices": slices, "counters": counters, "marks": marks, "flows": list(flows.values()), "parents": parents}, sys.stdout)
