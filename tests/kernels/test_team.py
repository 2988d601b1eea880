"""Tickets: every task is taken once, and nobody goes on before its region is done."""

import threading
import time

import numba
import numpy as np

from fastbp.kernels.team import (
    end_drive,
    finish_task,
    open_region,
    take_ticket,
    task_of,
    wait_for_region,
    wait_for_tasks,
)
from fastbp.tables import DRIVEN, LEFT, STOP
from fastbp.threads import team_state


@numba.njit(nogil=True)
def drive(team, takers, tasks, regions, sums):
    """Regions of more and more tasks; ``sums`` gets what is seen after each."""
    for region in range(regions):
        open_region(team, tasks + region)
        ticket = take_ticket(team)
        task = task_of(team, ticket, 0)
        while task >= 0:
            takers[region, task] += 1
            finish_task(team)
            ticket = take_ticket(team)
            task = task_of(team, ticket, 0)
        wait_for_tasks(team, ticket)
        sums[region] = takers[region].sum()


@numba.njit(nogil=True)
def help_with(team, takers, tasks, worker):
    """Tasks of any region until told to leave; returns how many."""
    taken = 0
    while True:
        ticket = take_ticket(team)
        task = task_of(team, ticket, worker)
        if task >= 0:
            takers[find_region(ticket, tasks), task] += 1
            finish_task(team)
            taken += 1
        elif not wait_for_region(team, ticket):
            return taken


@numba.njit
def end_drive_of(team):
    end_drive(team)


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
    help_with(stopped, takers, tasks, 1)

    def help_as(worker):
        counts.append(help_with(team, takers, tasks, worker))

    team[DRIVEN] = 1  # so they stay until they are told to leave
    helpers = [threading.Thread(target=help_as, args=(worker,)) for worker in (1, 2, 3)]
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
    def next_task(team, worker):
        return task_of(team, take_ticket(team), worker)

    assert next_task(team_state(), 0) == -1
    team = team_state(2)
    assert [next_task(team, 0) for _ in range(4)] == [0, 1, -1, -1]


def test_workers_take_the_tasks_of_their_parity_first():
    @numba.njit
    def next_task(team, worker):
        return task_of(team, take_ticket(team), worker)

    team, workers = team_state(6), (0, 1, 3, 0, 2, 1, 0, 1)
    assert [next_task(team, w) for w in workers] == [0, 1, 3, 2, 4, 5, -1, -1]
    for tasks in (5, 6):
        for worker in (0, 1):
            team = team_state(tasks)
            own = list(range(worker, tasks, 2))
            others = list(range(1 - worker, tasks, 2))
            taken = [next_task(team, worker) for _ in range(tasks)]
            assert taken == own + others[::-1]


def test_helpers_leave_an_idle_team_and_say_so():
    team = team_state()
    assert help_with(team, np.zeros((1, 1), np.int64), 1, 1) == 0
    assert team[LEFT] == 1


def test_helpers_wait_for_a_driver():
    # the task that it works on may take longer than they would wait for it otherwise
    team, takers = team_state(), np.zeros((1, 1), np.int64)
    team[DRIVEN] = 1
    end_drive_of(team)  # compiled before it matters
    assert team[DRIVEN] == 0
    help_with(team, takers, 1, 1)
    team[[DRIVEN, LEFT]] = 1, 0
    helper = threading.Thread(target=help_with, args=(team, takers, 1, 1))
    helper.start()
    time.sleep(0.2)
    assert helper.is_alive()
    assert team[LEFT] == 0
    end_drive_of(team)
    helper.join(timeout=60)
    assert not helper.is_alive()
    assert team[LEFT] == 1
