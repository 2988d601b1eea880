"""Tickets: every task is taken once, and nobody goes on before its region is done."""

import threading

import numba
import numpy as np

from fastbp.kernels.team import (
    finish_task,
    open_region,
    take_ticket,
    task_of,
    wait_for_region,
    wait_for_tasks,
)
from fastbp.tables import STOP
from fastbp.threads import team_state


@numba.njit(nogil=True)
def drive(team, takers, tasks, regions, sums):
    """Regions of more and more tasks; ``sums`` gets what is seen after each."""
    for region in range(regions):
        open_region(team, tasks + region)
        ticket = take_ticket(team)
        while task_of(ticket) >= 0:
            takers[region, task_of(ticket)] += 1
            finish_task(team)
            ticket = take_ticket(team)
        wait_for_tasks(team, ticket)
        sums[region] = takers[region].sum()


@numba.njit(nogil=True)
def help_with(team, takers, tasks):
    """Tasks of any region until told to leave; returns how many."""
    taken = 0
    while True:
        ticket = take_ticket(team)
        task = task_of(ticket)
        if task >= 0:
            takers[find_region(ticket, tasks), task] += 1
            finish_task(team)
            taken += 1
        elif not wait_for_region(team, ticket):
            return taken


@numba.njit
def find_region(ticket, tasks):
    """A region of ``drive`` is known by its number of tasks."""
    return ((ticket >> 24) & ((1 << 24) - 1)) - tasks


def test_every_task_is_taken_once_and_seen_by_the_driver():
    regions, tasks = 3000, 5
    team = team_state()
    takers = np.zeros((regions, tasks + regions), np.int64)
    sums, counts = np.zeros(regions, np.int64), []
    drive(team_state(), takers[:0], tasks, 0, sums)  # compiled before threads start
    stopped = team_state()
    stopped[STOP] = 1
    help_with(stopped, takers, tasks)
    helpers = [
        threading.Thread(target=lambda: counts.append(help_with(team, takers, tasks)))
        for _ in range(3)
    ]
    for helper in helpers:
        helper.start()
    drive(team, takers, tasks, regions, sums)
    team[STOP] = 1
    for helper in helpers:
        helper.join(timeout=60)
    assert len(counts) == 3
    sizes = tasks + np.arange(regions)
    np.testing.assert_array_equal(takers, np.arange(tasks + regions) < sizes[:, None])
    # each region was complete when the driver went on
    np.testing.assert_array_equal(sums, sizes)


def test_a_region_of_no_tasks_gives_none():
    @numba.njit
    def first_task(team):
        return task_of(take_ticket(team))

    assert first_task(team_state()) == -1
    team = team_state(2)
    assert [first_task(team) for _ in range(4)] == [0, 1, -1, -1]


def test_helpers_leave_an_idle_team():
    assert help_with(team_state(), np.zeros((1, 1), np.int64), 1) == 0
