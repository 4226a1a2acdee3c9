"""`stockify up`: brings an instance up in order, keeps it running, and drains it in order.

It decides when processes start and stop; how is `crew` and below, which is `plan`, what it looks
like is `display`. It holds no connection to Redis or Postgres beyond asking how they are.
"""

import asyncio
import contextlib
import signal
import sys
import time
from pathlib import Path

import msgspec

from pipeline import clock, config
from pipeline.attached import Running
from pipeline.clock import Clock
from pipeline.config import Settings
from pipeline.credentials import DEFAULT_SCOPES, DEFAULT_TTL_S
from pipeline.errors import BusError, StockifyError
from pipeline.topics import Topics
from stockify import health, plan, tokens, warm
from stockify.crew import Crew, StartFailed, holds_within, together
from stockify.display import Display
from stockify.engines import postgres, servers, valkey
from stockify.engines.postgres import Postgres
from stockify.engines.valkey import Valkey
from stockify.health import Health
from stockify.instance import Secrets, StateDirectory, Status, this_process
from stockify.plan import Plan, Ports
from stockify.processes import Launch

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK_S = 1.0
LOOK_CLOSELY_S = 0.2  # while something is starting or stopping
ENGINE_START_S = 60.0  # a recovery after a crash is part of it
PROCESSES_START_S = 60.0  # a cold import of everything on a small, busy machine
FIRST_CHAIN_S = 60.0
# A terminal and a wrapper (make, npm) may both pass one Ctrl-C on; that is one wish, not two.
ONE_WISH_S = 0.5


class Supervisor:
    """One instance, from its engines to its page."""

    def __init__(
        self, settings: Settings, state: StateDirectory, display: Display, *, simulated: bool
    ) -> None:
        self._settings = settings
        self._state = state
        self._display = display
        self._simulated = simulated
        self._crew = Crew(state, display)
        self._ports = Ports()
        self._plan: Plan | None = None
        self._phase = "starting"
        self._shows_processes = False
        self._since = clock.to_rfc3339(Clock().now_ns())
        self._stopping = asyncio.Event()
        self._asked_at_s = 0.0

    async def run(self) -> int:
        """Hold the state directory, bring up, stay until asked to stop, drain.

        Gives the exit code. Raises AlreadyHeld and ConfigError before anything was started.
        """
        self._listen_to_signals()
        with self._state.held(this_process(self._since)):
            await self._crew.take_over()
            watching = asyncio.create_task(self._watch())
            try:
                return await self._up_until_stopped()
            finally:
                self._phase = "draining"
                await self._crew.drain(plan.DRAIN_ORDER)
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching
                self._listen_no_more()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._asked_to_stop)

    def _listen_no_more(self) -> None:
        """All is drained: one more Ctrl-C shall not turn the exit into a death by signal."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    def _asked_to_stop(self) -> None:
        now_s = time.monotonic()
        if not self._stopping.is_set():
            self._asked_at_s = now_s
            self._stopping.set()
            self._display.say("stopping; once more to hurry")
        elif now_s - self._asked_at_s > ONE_WISH_S and not self._crew.hurry.is_set():
            self._crew.hurry.set()
            self._display.say("hurrying: what has not ended is killed")

    async def _up_until_stopped(self) -> int:
        bringing_up = asyncio.create_task(self._bring_up())
        stopped = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([bringing_up, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not bringing_up.done():
            bringing_up.cancel()
        try:
            await bringing_up
            await stopped
        except asyncio.CancelledError:
            return 0  # asked to stop while starting
        except StockifyError as error:
            self._display.say(f"stockify: {error}")
            return 1
        finally:
            stopped.cancel()
        return 0

    async def _bring_up(self) -> None:
        secrets = self._state.ensure_secrets()
        async with together() as group:
            redis = group.create_task(self._start_redis(secrets))
            postgres = group.create_task(self._start_postgres())
            group.create_task(self._warm_kernels())
            group.create_task(self._build_page())
        made = self._plan = plan.make(
            self._settings,
            secrets,
            self._ports,
            redis_url=redis.result(),
            database_url=postgres.result(),
            simulated=self._simulated,
        )
        for text in made.moved:
            self._display.say(f"! {text}")
        first = [launch for launch in made.launches if launch.name == "simulator"]
        async with together() as group:
            group.create_task(self._migrate(made))
            for launch in first:
                group.create_task(self._start_simulator(made, launch))
        self._leave_for_consumers(made)
        with self._display.step("processes"):
            await self._start_processes(made, [each for each in made.launches if each not in first])
        self._announce(made)
        await self._first_chain(made)
        self._phase = "running"

    async def _start_redis(self, secrets: Secrets) -> str:
        url = self._settings.redis_url
        if url:
            with self._display.step(f"Redis at {config.redact_url(url)}"):
                await servers.check_kind(self._settings)
                for finding in await servers.findings(self._settings):
                    self._display.say(f"! Redis: {finding.text}")
            return url
        port = self._ports.usual("Valkey", valkey.USUAL_PORT)
        engine = Valkey(self._state.path / "redis", port, secrets.redis_password)
        with self._display.step("Valkey"):
            await self._crew.start(engine.prepare(_bare_environment()), engine.probe)
            await self._crew.until_ready("valkey", ENGINE_START_S)
        return engine.url

    async def _start_postgres(self) -> str:
        if self._settings.database_url:
            return self._settings.database_url
        port = self._ports.usual("Postgres", postgres.USUAL_PORT)
        engine = Postgres(self._state.path / "postgres", port)

        async def probe() -> Health | None:
            return Health() if await engine.is_ready() else None

        with self._display.step("Postgres"):
            launch = await asyncio.to_thread(engine.prepare, _bare_environment())
            await self._crew.start(launch, probe)
            await self._crew.until_ready("postgres", ENGINE_START_S)
        return engine.url

    async def _warm_kernels(self) -> None:
        for role in await asyncio.to_thread(warm.cold_roles):
            with self._display.step(f"kernels of {role}, compiled once"):
                await self._crew.run_step(warm.launch(role))

    async def _build_page(self) -> None:
        """A source checkout builds its page; without it everything but the page works."""
        launch = Launch(
            name="page",
            argv=(sys.executable, "-m", "stockify.page"),
            env=_bare_environment(),
            cwd=Path("/"),
        )
        try:
            with self._display.step("page"):
                await self._crew.run_step(launch)
        except StartFailed as error:
            self._display.say(f"! there will be no page: {error}")

    async def _migrate(self, made: Plan) -> None:
        launch = Launch(
            name="migrate",
            argv=(sys.executable, "-m", "stockify", "migrate"),
            env=plan.environment(made.settings, "migrate"),
            cwd=Path("/"),
        )
        with self._display.step("migrations"):
            await self._crew.run_step(launch)

    async def _start_simulator(self, made: Plan, launch: Launch) -> None:
        """First and alone, so that ingest finds its provider at the first request."""
        with self._display.step("simulator"):
            await self._start_process(made, launch)
            await self._crew.until_ready(launch.name, PROCESSES_START_S)

    async def _start_process(self, made: Plan, launch: Launch) -> None:
        port = made.metrics_ports[launch.name]
        await self._crew.start(launch, health.over_http(made.settings.metrics_host, port), port)

    async def _start_processes(self, made: Plan, launches: list[Launch]) -> None:
        for launch in launches:
            await self._start_process(made, launch)
        self._shows_processes = True

        async def all_up() -> bool:
            return not self._crew.not_up()

        if not await holds_within(all_up, PROCESSES_START_S):
            self._display.say(f"! not up yet: {', '.join(self._crew.not_up())}")

    def _leave_for_consumers(self, made: Plan) -> None:
        environment = config.environment(made.settings)
        own = {name: text for name, text in environment.items() if name.startswith(config.PREFIX)}
        self._state.write_running(Running(gateway=made.gateway_url, environment=own))
        holder = msgspec.structs.replace(this_process(self._since), page=made.gateway_url)
        self._state.write_holder(holder)

    def _announce(self, made: Plan) -> None:
        token = tokens.local_token(made.settings, self._state, DEFAULT_SCOPES, DEFAULT_TTL_S)
        market = "simulated; --no-sim uses the real provider" if self._simulated else "real"
        self._display.say(f"\n  market  {market}\n  page    {made.gateway_url}/#token={token}\n")

    async def _first_chain(self, made: Plan) -> None:
        topics = Topics(shards=made.settings.shards, tagged=made.settings.redis_cluster)
        commands = [("HLEN", topics.catalog(shard)) for shard in range(made.settings.shards)]

        async def has_chain() -> bool:
            with contextlib.suppress(BusError):
                sizes = await servers.ask_owners(made.settings, *commands)
                return any(isinstance(size, int) and size > 0 for size in sizes)
            return False

        try:
            with self._display.step("first chain"):
                if not await holds_within(has_chain, FIRST_CHAIN_S):
                    raise StartFailed("no chain")
        except StartFailed:
            self._display.say(f"! no chain within {FIRST_CHAIN_S:g} s; see stockify logs")

    async def _watch(self) -> None:
        """Look, show and write down, for as long as there is something to look at."""
        while True:
            await self._crew.look()
            status = self._status()
            with contextlib.suppress(OSError):  # a full disk: the next look tries again
                self._state.write_status(status)
            if self._shows_processes:
                self._display.show(status)
            await asyncio.sleep(LOOK_S if self._phase == "running" else LOOK_CLOSELY_S)

    def _status(self) -> Status:
        processes = self._crew.statuses()
        state = self._phase
        if state == "running":
            well = all(process.state == "ready" for process in processes.values())
            state = "ready" if well else "degraded"
        settings = self._plan.settings if self._plan else self._settings
        return Status(
            state=state,
            at=clock.to_rfc3339(Clock().now_ns()),
            pid=this_process(self._since).pid,
            since=self._since,
            gateway=self._plan.gateway_url if self._plan else "",
            redis=config.redact_url(settings.redis_url),
            database=config.redact_url(settings.database_url),
            processes=processes,
        )


def _bare_environment() -> dict[str, str]:
    """The user's own environment without our settings: an engine needs no secret of ours."""
    return {
        name: text
        for name, text in config.environment(Settings()).items()
        if not name.startswith(config.PREFIX)
    }
