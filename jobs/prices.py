"""What a share of a device is worth: the dual prices of the cutting-stock problem. Pure Python, no solver.

To serve a mix of requests with the fewest devices, each device is cut by a pattern, as a paper roll is. The price of
a request's size is the number of devices that one more such request costs. Sizes that the gaps left by others take
for nothing cost nothing; a size that leaves a gap which nobody can use costs a whole device.

Source: P. C. Gilmore, R. E. Gomory, "A linear programming approach to the cutting-stock problem" (1961).
"""

from collections.abc import Mapping

STEP_MILLI = 10  # sizes are rounded up to this grid; finer ones changed no price that was measured
UNITS = 1000 // STEP_MILLI  # of one device
_TOLERANCE = 1e-9
_ROUNDS = 20_000  # far more than any mix needed (91 kinds of requests: 60); ends a cycle, the prices are then near


def size_prices(demand: Mapping[int, float]) -> dict[int, float]:
    """Return the price in devices, 0 to 1, of each size in ``demand``.

    Args:
        demand: Weight of each size, more than 0; sizes in thousandths of a device, 1 to 1000.
    """
    merged: dict[int, float] = {}
    for size, weight in demand.items():
        merged[-(-size // STEP_MILLI)] = merged.get(-(-size // STEP_MILLI), 0.0) + weight
    if not merged:
        return {}
    widths = sorted(merged)
    found = dict(zip(widths, _duals(widths, [merged[width] for width in widths]), strict=True))
    return {size: found[-(-size // STEP_MILLI)] for size in demand}


def residual_values(prices: Mapping[int, float]) -> list[float]:
    """Return, for 0 to 1000 free thousandths of a device, the most price that requests can still bring to it."""
    best, _ = _fill([-(-size // STEP_MILLI) for size in prices], list(prices.values()))
    return [best[milli // STEP_MILLI] for milli in range(1001)]


def _fill(widths: list[int], values: list[float]) -> tuple[list[float], list[int]]:
    """Solve the unbounded knapsack for every capacity: the best values, and the last width taken (-1: none)."""
    best, taken = [0.0] * (UNITS + 1), [-1] * (UNITS + 1)
    for room in range(1, UNITS + 1):
        best[room] = best[room - 1]
        for place, width in enumerate(widths):
            if width <= room and best[room - width] + values[place] > best[room] + _TOLERANCE:
                best[room], taken[room] = best[room - width] + values[place], place
    return best, taken


def _pattern(widths: list[int], taken: list[int]) -> list[float]:
    """Count how often each width is cut from one device in the fill that ``taken`` describes."""
    counts, room = [0.0] * len(widths), UNITS
    while room:
        place = taken[room]
        if place < 0:
            room -= 1
        else:
            counts[place] += 1
            room -= widths[place]
    return counts


def _duals(widths: list[int], demand: list[float]) -> list[float]:
    """Run the revised simplex method, with columns made on the way; returns the price of each width."""
    rows = range(len(widths))
    total = sum(demand)
    wanted = [weight / total + 1e-7 * (row + 1) for row, weight in enumerate(demand)]  # apart: no ties, no cycles
    inverse = [[1 / (UNITS // widths[row]) if row == column else 0.0 for column in rows] for row in rows]
    costs = [1.0 for _ in rows]
    amounts = [inverse[row][row] * wanted[row] for row in rows]
    prices: list[float] = []
    for _ in range(_ROUNDS):
        prices = [sum(costs[row] * inverse[row][column] for row in rows if costs[row]) for column in rows]
        cheapest = min(rows, key=prices.__getitem__)
        if prices[cheapest] < -_TOLERANCE:  # serve more than is asked for
            cost, column = 0.0, [-float(row == cheapest) for row in rows]
        else:
            best, taken = _fill(widths, prices)
            if best[UNITS] <= 1 + 1e-7:
                break
            cost, column = 1.0, _pattern(widths, taken)
        _enter(cost, column, inverse, costs, amounts)
    return [min(1.0, max(0.0, price)) for price in prices]


def _enter(
    cost: float, column: list[float], inverse: list[list[float]], costs: list[float], amounts: list[float]
) -> None:
    """Bring a column into the basis, in place, for the one that it drives to zero first."""
    step = [sum(a * b for a, b in zip(line, column, strict=True) if b) for line in inverse]
    _, leaving = min((amounts[row] / step[row], row) for row in range(len(step)) if step[row] > _TOLERANCE)
    pivot = inverse[leaving] = [value / step[leaving] for value in inverse[leaving]]
    amounts[leaving] /= step[leaving]
    costs[leaving] = cost
    for row, factor in enumerate(step):
        if row != leaving and factor:
            inverse[row] = [a - factor * b for a, b in zip(inverse[row], pivot, strict=True)]
            amounts[row] -= factor * amounts[leaving]
