"""Releases: what answers as one unit, the gate before it, and the switch that makes it live."""
