"""What a job asked for against what it used, in words."""

from typing import Any

from stoker.client.screen import amount, duration

SHARE_WORTH_SAYING = 0.7  # of what was asked for: who used less could ask for less
SHORTEST_SECONDS = 10.0  # memory is looked at now and then: of a shorter job the peak may have gone unseen
HEADROOM = 1.2  # over the most that was used


def use_pairs(usage: dict[str, Any]) -> list[tuple[str, object]]:
    """Name and value, for people."""
    used, software = usage.get("used") or {}, usage.get("software") or {}
    packages = software.get("packages") or {}
    versions = [f"{name} {software[name]}" for name in ("python", "torch", "driver") if software.get(name)]
    return [
        ("software", ", ".join([*versions, *([f"{len(packages)} packages"] if packages else [])])),
        ("device", software.get("device")),
        ("used", ", ".join(_used(usage["asked"], used)) if used else None),
        ("advice", advice(usage)),
    ]


def use_sentence(usage: dict[str, Any]) -> str:
    """What was used of what was asked for, and what would do; empty where nothing was measured."""
    words = ", ".join(_used(usage["asked"], usage.get("used") or {}))
    return "; ".join(filter(None, [f"used {words}" if words else "", advice(usage)]))


def _used(asked: dict[str, Any], used: dict[str, Any]) -> list[str]:
    words = []
    if used.get("memory_bytes"):
        words.append(f"{amount(used['memory_bytes'])} of {amount(asked['memory'])} memory")
    if used.get("gpu_memory_bytes"):
        limit = f" of {amount(asked['gpu_memory'])}" if asked.get("gpu_memory") else ""
        words.append(f"{amount(used['gpu_memory_bytes'])}{limit} GPU memory")
    if used.get("cpu_seconds") is not None and used.get("ran_seconds"):
        words.append(f"{used['cpu_seconds'] / used['ran_seconds']:.1f} of {asked['cpus']:g} CPUs on average")
    if used.get("ran_seconds"):
        words.append(f"for {duration(used['ran_seconds'])}")
    return words


def advice(usage: dict[str, Any]) -> str | None:
    """What the next job like this could ask for, where that is much less."""
    used, memory = usage.get("used") or {}, usage["asked"]["memory"]
    peak = used.get("memory_bytes")
    if not peak or (used.get("ran_seconds") or 0) < SHORTEST_SECONDS or peak > SHARE_WORTH_SAYING * memory:
        return None
    enough = max(1, round(HEADROOM * peak / 1e8)) * 100
    return f"--memory {enough}MB would do"
