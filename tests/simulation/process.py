"""One process of a worker: the real engine, and the loop around it that Faust is in production."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from livestep.pipeline.engine.engine import Engine, build_engine
from livestep.pipeline.errors import EngineError
from livestep.pipeline.settings import Settings
from tests.simulation.plan import Sizes
from tests.simulation.simulated_services import SimulatedLog
from tests.support.world import INPUT, OUTPUT

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation


class Process:
    """A process; it ends with its engine, or at a crash.

    Args:
        simulation: What it is part of.
        worker: Number of the worker.
        life: Which of the worker's processes it is, from 0.
        sizes: How it is set up.

    Attributes:
        asleep_until: Tick before which nothing of it runs.
        asleep_since: Since when it sleeps.
        died_at: Tick of its end.
        is_over: Whether it is no more.
        is_told_to_leave: Whether it drains after its batch.
        queue: The saver's.
        pool: The engine's slots.
        left: Why it has left by itself, if by an error.
        is_next_model: Whether it has the model that takes over.
    """

    def __init__(self, simulation: Simulation, worker: int, life: int, sizes: Sizes) -> None:
        self.worker = worker
        self.life = life
        self.name = f"w{worker}" + "'" * life
        self.sizes = sizes
        self.asleep_since = self.asleep_until = 0
        self.died_at = -1
        self.is_over = False
        self.is_told_to_leave = False
        self.has_joined = False
        self.left: EngineError | None = None
        self.queue: Any = None
        self.pool: Any = None
        self.engine: Engine | None = None
        self._simulation = simulation
        plan = simulation.plan
        self.is_next_model = simulation.coordinator.is_taking_over
        sides = list(simulation.checkers.era.sides.values())
        self._side = sides[-1] if self.is_next_model else sides[0]
        takeover = {}
        if self.is_next_model and plan.takeover is not None:
            takeover["on_new_model"] = plan.takeover.on_new_model
        self.settings = Settings(
            model="model",
            input_topic=INPUT,
            output_topic=OUTPUT,
            batch_events_max=sizes.batch_events_max,
            pool_slots=sizes.pool_slots,
            save_queue_batches_max=max(sizes.save_queue_batches_max, 1),
            guarantee=plan.guarantee,
            **takeover,
        )
        self.log = SimulatedLog(
            simulation.broker,
            self.settings,
            f"w{worker}",
            witness=simulation.checkers,
            meet=simulation.meet,
            is_over=lambda: self.is_over,
            rng=simulation.rng if sizes.is_ragged else None,
        )
        simulation.scheduler.spawn(self, "engine", self._run)

    @property
    def is_saving_behind(self) -> bool:
        """Whether it saves in a thread of its own."""
        return self.sizes.save_queue_batches_max > 0

    @property
    def is_leaving(self) -> bool:
        """Whether it goes, of its own will or with an error."""
        return self.is_told_to_leave or self.left is not None

    @property
    def partitions(self) -> list[int]:
        """Partitions that it thinks it has."""
        return [] if self.engine is None else self.engine.partitions

    def silent_ticks(self, now: int) -> int:
        """Count the ticks for which nobody has heard of it: it sleeps, or is no more."""
        if self.is_over:
            return now - self.died_at
        return now - self.asleep_since if self.asleep_until > now else 0

    def end(self, tick: int) -> None:
        """Be no more."""
        self.is_over = True
        self.died_at = tick

    def _run(self) -> None:
        simulation = self._simulation
        self.engine = engine = build_engine(
            self.settings,
            self._side.model,
            self.log,
            self._side.store,
            is_saving_behind=self.is_saving_behind,
        )
        try:
            engine.join()
            self.has_joined = True
            simulation.coordinator.note_joined(self)
            while not self.is_told_to_leave:
                with simulation.verb("poll"):
                    work = engine.poll(0)
                    simulation.tell_poll(work)
                if work is not None:
                    engine.run(work)
                simulation.scheduler.running.pause()
            simulation.tell("leaves")
        except EngineError as error:
            self.left = error
            simulation.tell(f"leaves: {error}")
        # As the worker does it: whatever makes it leave, it drains.
        with contextlib.suppress(EngineError):
            engine.drain()
