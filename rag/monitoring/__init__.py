"""Beside the rooms: what is watched between two trainings, and whether it calls for another one."""
