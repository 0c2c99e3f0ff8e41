"""What a run was made on."""

import os
import platform
from importlib import metadata
from pathlib import Path

import psutil
import psycopg
import redis

from benchmarks.stage import Stage

GIGABYTE = 1e9


def machine(stage: Stage) -> dict[str, object]:
    """Say what it is in words that name no machine."""
    with psycopg.connect(stage.postgres.url) as connection:
        postgres = connection.info.server_version
    with redis.Redis.from_url(stage.valkey.url) as client:
        valkey = client.info("server").get("valkey_version")
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gb": round(psutil.virtual_memory().total / GIGABYTE),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "postgresql": f"{postgres // 10_000}.{postgres % 10_000}",
        "valkey": valkey,
        "packages": {
            name: metadata.version(name)
            for name in (
                *("dramatiq", "sqlalchemy", "psycopg", "starlette", "uvicorn"),
                *("celery", "faststream", "procrastinate", "fastapi"),
            )
        },
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
