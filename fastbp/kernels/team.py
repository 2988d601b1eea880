"""How the threads of a team share the tasks of a parallel region.

State    ``team``, whole numbers on cache lines of their own (``tables``):
         TICKET   region << 48 | tasks << 24 | tickets given out, taken by adding 1
         EVEN     tasks that workers 0, 2, ... have taken
         ODD      tasks that workers 1, 3, ... have taken
         DONE     tasks that are finished
         STOP     not 0: all shall leave
         DRIVEN   not 0: a driver was called, and may open a region any time until it
                  says that it goes
         LEFT     helpers that have lost patience: Python may hear of it later
         YIELD    address of the system's function that gives up the processor
Ticket   names its region and its number of tasks, so one look tells whether there is
         work to do; a thread that comes late takes part in whatever region is open.
Task     even workers take the tasks 0, 2, ... and then the odd ones from the last one
         back, odd workers 1, 3, ... and then the even ones; as tickets are as many as
         tasks, the two meet and never cross. So the memory that a task writes mostly
         stays with one of two cores from step to step, as fetching it from the other
         takes long, and neighbours, which read the same, are worked on together.
Waiting  only for tasks that someone works on, never for a thread: one that the system
         has descheduled between two tasks, or that never came, holds nobody up.

Worker 0, the driver, opens a region when all tasks of the one before are done. Its
atomic operations order memory: what a task writes is seen by the tasks of later regions.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastbp.kernels import simd
from fastbp.kernels.simd import part
from fastbp.tables import (
    DONE,
    DRIVEN,
    EVEN,
    LEFT,
    ODD,
    STOP,
    TASKS_SHIFT,
    TICKET,
    YIELD,
)

_NUMBER = (1 << TASKS_SHIFT) - 1
_REGION_SHIFT = 2 * TASKS_SHIFT

# Looks at a word before the processor is given up, and until a helper leaves for good
# when nobody drives: a driver's last task may well take longer than it likes to wait.
# A look lasts about 60 ns; giving up the processor, from 1 us to milliseconds.
_SPINS, _PATIENCE = 300, 6000


def _address_of(context, builder, words_type, words, which):
    pointer = simd.emit_pointer(context, builder, words_type, words, which)
    simd.emit_bounds_check(context, builder, words_type, words, pointer, 1)
    return pointer


@intrinsic
def _add(typingctx, words, which, n):
    """words[which] before n is added to it, atomically."""

    def codegen(context, builder, sig, args):
        pointer = _address_of(context, builder, sig.args[0], *args[:2])
        return builder.atomic_rmw("add", pointer, args[2], "acq_rel")

    return types.int64(words, types.intp, types.int64), codegen


@intrinsic
def read(typingctx, words, which):
    """words[which], and with it all that was written before it."""

    def codegen(context, builder, sig, args):
        pointer = _address_of(context, builder, sig.args[0], *args)
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(words, types.intp), codegen


@intrinsic
def write(typingctx, words, which, value):
    """words[which] = value, after all that was written before."""

    def codegen(context, builder, sig, args):
        pointer = _address_of(context, builder, sig.args[0], *args[:2])
        builder.store_atomic(args[2], pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(words, types.intp, types.int64), codegen


@intrinsic
def pause(typingctx):
    """Let the core's other hardware thread run for a moment."""

    def codegen(context, builder, sig, args):
        target = simd.TARGET[0]
        if target.startswith("x86_64"):
            name, operands = "llvm.x86.sse2.pause", []
        elif target.startswith(("aarch64", "arm64")):
            name, operands = "llvm.aarch64.hint", [ir.IntType(32)(1)]
        else:
            return context.get_dummy_value()
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in operands])
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        builder.call(function, operands)
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _call(typingctx, address):
    """Call the C function int f(void) at an address."""

    def codegen(context, builder, sig, args):
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@part
def _relax(team, looks):
    pause()
    if looks >= _SPINS:
        _call(team[YIELD])


@part
def take_ticket(team):
    """A ticket for the next task of the region that is open."""
    return _add(team, TICKET, 1)


@part
def task_of(team, ticket, worker):
    """The task that a worker gets for its ticket, or -1 if the region has no more."""
    tasks = (ticket >> TASKS_SHIFT) & _NUMBER
    if ticket & _NUMBER >= tasks:
        return -1
    side = worker & 1
    taken = _add(team, ODD if side else EVEN, 1)
    own = (tasks + 1 - side) >> 1
    return 2 * taken + side if taken < own else 2 * (tasks - 1 - taken) + 1 - side


@part
def region_of(ticket):
    """The number of the ticket's region, the first is 0."""
    return ticket >> _REGION_SHIFT


@part
def finish_task(team):
    """Report that the task of a ticket is done."""
    _add(team, DONE, 1)


@part
def wait_for_tasks(team, ticket):
    """The driver waits until all tasks of the ticket's region are done."""
    looks = 0
    while read(team, DONE) < (ticket >> TASKS_SHIFT) & _NUMBER:
        _relax(team, looks)
        looks += 1


@part
def is_stopped(team):
    """Whether everyone shall leave as soon as nothing is left half done."""
    return read(team, STOP) != 0


@part
def open_region(team, tasks):
    """The driver hands out the tasks 0, ..., tasks - 1."""
    region = region_of(team[TICKET]) + 1
    write(team, DONE, 0)
    write(team, EVEN, 0)
    write(team, ODD, 0)
    write(team, TICKET, region << _REGION_SHIFT | tasks << TASKS_SHIFT)


@part
def wait_for_region(team, ticket):
    """A helper waits for another region than the ticket's; False: it shall leave.

    One that has waited for long with no driver says that it leaves, and looks whether
    one comes; who calls a driver says so, and then looks who has left.
    """
    looks, patience = 0, _PATIENCE
    came = gone = False
    while not (came or gone or is_stopped(team)):
        _relax(team, looks)
        came = region_of(read(team, TICKET)) != region_of(ticket)
        looks += 1
        patience = _PATIENCE if read(team, DRIVEN) else patience - 1
        if patience <= 0:
            _add(team, LEFT, 1)
            gone = read(team, DRIVEN) == 0
            if not gone:
                _add(team, LEFT, -1)
    return came and not gone


@part
def end_drive(team):
    """The driver reports that it opens no more regions."""
    write(team, DRIVEN, 0)
