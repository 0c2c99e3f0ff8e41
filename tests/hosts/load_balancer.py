"""What stands between Kratos and several apis: it calls those in turn that say they are ready."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import aiohttp

CHECK_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 2.0


class LoadBalancer:
    """Asks each api every two seconds whether it is ready, and waits as long for the answer."""

    def __init__(self, apis: Sequence[str]) -> None:
        self._apis = deque(apis)
        self.ready: set[str] = set()

    def route(self) -> Sequence[str]:
        """The apis for a call, the best one first; all of them, if none is ready."""
        self._apis.rotate()
        return [api for api in self._apis if api in self.ready] or list(self._apis)

    async def watch(self) -> None:
        """Ask them until cancelled."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as http:
            await asyncio.gather(*(self._watch(http, api) for api in list(self._apis)))

    async def _watch(self, http: aiohttp.ClientSession, api: str) -> None:
        while True:
            try:
                async with http.get(f"{api}/health/ready") as answer:
                    is_ready = answer.ok
            except (aiohttp.ClientError, TimeoutError):
                is_ready = False
            (self.ready.add if is_ready else self.ready.discard)(api)
            await asyncio.sleep(CHECK_SECONDS)
