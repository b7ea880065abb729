"""The switch on a real MLflow store: two at once, killed anywhere, in a hundred random orders."""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rag.artifacts import Artifacts
from rag.errors import ReleaseError
from rag.params import Params, parse_params
from rag.release import ledger, registry, switch
from rag.release.intent import Switch, read_intent
from rag.release.registry import CHAMPION, PENDING, mlflow_client
from tests.retrieval.qdrant_stub import serve_stub

pytestmark = pytest.mark.integration

INDEXES = {"1": "1" * 16, "2": "2" * 16, "3": "3" * 16}
STEPS = ("check", "intent", "compare", "collection", "alias", "commit", "settle", "close")


@dataclass
class World:
    """A registered model of three versions, a ledger, and a lock that each promotion takes."""

    artifacts: Artifacts
    params: Params
    outcomes: list[str] = field(default_factory=list)

    @property
    def live(self) -> str | None:
        found = registry.champion(self.params)
        return found.version if found else None

    @property
    def rows(self) -> list[dict[str, Any]]:
        return ledger.read(self.artifacts.ledger)

    def switch(self, version: str, before: str | None) -> Switch:
        row = {"outcome": "PROMOTE", "champion_before": before, "champion": version}
        return Switch(CHAMPION, version, before, {**row, "version": version})

    def promotion(self, version: str) -> Iterator[str]:
        """Compares, takes the lock, finishes what others left, switches: a step at a time."""
        before = self.live
        yield "compared"
        with (self.artifacts.state / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.outcomes.append("busy")
                return
            yield "locked"
            switch.finish(self.artifacts, self.params)
            yield "finished"
            try:
                for step in switch.steps(self.artifacts, self.params, self.switch(version, before)):
                    step.act()
                    yield step.name
            except ReleaseError as error:
                self.outcomes.append(str(error).partition(":")[0])
            else:
                self.outcomes.append("won")


def make_world(folder: Path, name: str, **index: Any) -> World:
    folder.mkdir(parents=True, exist_ok=True)
    client = mlflow_client()
    client.create_registered_model(name)
    for fingerprint in INDEXES.values():
        tags = {"fingerprint": fingerprint, PENDING: "true"}
        client.create_model_version(name, source="nowhere", tags=tags)
    params = parse_params({"release": {"name": name}, "index": index})
    return World(Artifacts(folder, state_folder=folder), params)


@pytest.mark.usefixtures("_mlflow")
def test_a_hundred_random_orders_lose_nothing(tmp_path: Path) -> None:
    """Two or three promotions, stepped in turn at random, some of them killed on the way."""
    seen: set[str] = set()
    for seed in range(100):
        chance = random.Random(seed)
        world = make_world(tmp_path / str(seed), f"order-{seed}")
        agents = [world.promotion(version) for version in "123"[: chance.choice((2, 2, 3))]]
        killed = 0
        while agents:
            agent = chance.choice(agents)
            if chance.random() < 0.04:
                agent.close()  # as the kernel does for a killed process, its lock is let go
                agents.remove(agent)
                killed += 1
            # A burst, since whoever is never left behind is never told that the champion changed.
            elif None in [next(agent, None) for _ in range(chance.choice((1, 2, 20)))]:
                agents.remove(agent)
        left = read_intent(world.artifacts)
        recovered = switch.finish(world.artifacts, world.params)
        assert (recovered is None) is (left is None)
        assert switch.finish(world.artifacts, world.params) is None
        rows = world.rows
        assert world.live == (rows[-1]["champion"] if rows else None), seed
        history = [None, *(row["champion"] for row in rows)]
        assert [row["champion_before"] for row in rows] == history[:-1], "each follows the last"
        won = world.outcomes.count("won")
        assert won <= len(rows) <= won + killed, seed
        assert set(world.outcomes) <= {"won", "busy", "champion changed"}
        seen |= {*world.outcomes, *(["killed"] if killed else [])}
    assert seen == {"won", "busy", "champion changed", "killed"}, "the orders are worth their time"


@pytest.mark.usefixtures("_mlflow")
@pytest.mark.parametrize("last", STEPS)
def test_a_switch_that_stops_is_finished_or_taken_back(tmp_path: Path, last: str) -> None:
    """On a Qdrant server: its alias follows the one in MLflow, whatever was the last step."""
    from rag.retrieval.index_alias import alias_target
    from rag.retrieval.index_server import PREFIX

    with serve_stub() as (stub, port):
        for fingerprint in INDEXES.values():
            stub.client.create_collection(PREFIX + fingerprint, vectors_config={})
        url = f"http://127.0.0.1:{port}"
        world = make_world(tmp_path, f"stops-after-{last}", kind="server", url=url)
        alias = switch.collection_alias(world.params)
        artifacts, params = world.artifacts, world.params
        row = dict(world.switch("1", None).row)
        switch.make_champion(artifacts, params, "1", expected=None, row=row)
        assert alias_target(params.index, alias) == INDEXES["1"]
        for step in switch.steps(artifacts, params, world.switch("2", "1")):
            step.act()
            if step.name == last:
                break
        recovered = switch.finish(artifacts, params)
        moved = STEPS.index(last) >= STEPS.index("alias")
        assert world.live == ("2" if moved else "1")
        assert alias_target(params.index, alias) == INDEXES[world.live]
        assert [row["champion"] for row in world.rows] == (["1", "2"] if moved else ["1"])
        assert (recovered is None) is (last in ("check", "close"))
        tags = registry.get_release(params, "2").tags
        assert (PENDING in tags) is not moved


@pytest.mark.usefixtures("_mlflow")
def test_the_alias_is_the_truth_where_other_hands_have_moved_it(tmp_path: Path) -> None:
    world = make_world(tmp_path, "other-hands")
    artifacts, params = world.artifacts, world.params
    row = dict(world.switch("1", None).row)
    switch.make_champion(artifacts, params, "1", expected=None, row=row)
    for step in switch.steps(artifacts, params, world.switch("2", "1"))[:3]:
        step.act()
    mlflow_client().set_registered_model_alias("other-hands", CHAMPION, "3")
    recovered = switch.finish(artifacts, params)
    assert recovered is not None
    assert recovered.spoken() == "took back a switch that was cut short: version 2 is not champion"
    assert (world.live, len(world.rows)) == ("3", 1)


def test_an_intent_that_was_altered_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "switch.json").write_text('{"alias": "champion"')
    with pytest.raises(ReleaseError, match=r"switch\.json cannot be read"):
        read_intent(Artifacts(tmp_path, state_folder=tmp_path))
    os.unlink(tmp_path / "switch.json")
    assert read_intent(Artifacts(tmp_path, state_folder=tmp_path)) is None
