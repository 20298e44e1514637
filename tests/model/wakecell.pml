/*
 * The wake cell: who posts a task that is woken from several threads, perhaps before it has
 * suspended (two threads racing to wake it: exactly one succeeds; and the early wake).
 *
 * What it models: src/homebound/_cell.py, Task._run in _task.py
 *   wake(task, ctx), any thread     cell = task.cell; append a token of one's own; look at entries
 *                                   0 and 1: mine is entry 0: early, return: the suspender will
 *                                   post the task; mine is entry 1 and PARK is entry 0: post the
 *                                   task to ctx; else: raise AlreadyScheduled
 *   the suspender, home thread      the coroutine has yielded: append PARK to the cell made at the
 *                                   last enter; if entry 0 is not PARK: post the task where that
 *                                   token says
 *   enter, home thread              take the task from the mailbox; task.cell = [] (a new list);
 *                                   run it
 *
 * The task is running at home 0 in the beginning. It suspends SUSPENSIONS times, then ends. Two
 * homes, so that a wake may take the task to another thread while the first is not back from the
 * suspension.
 *
 * Variables
 *   cell      one list a suspension; entries 0 and 1 never change once there. Appending is atomic
 *             (the list's own lock)
 *   current   task.cell: which of the lists it is
 *   mailbox   for each home: the posts of this task in it (FIFO and wake-up: mailbox.pml)
 *   touching  how many threads are between enter and the point where the suspender lets go of the
 *             task
 *   entries, finished     how often the task was entered after a wake; whether it has ended
 *   won, raised           for each cell: wakers that returned, and that got AlreadyScheduled
 *   returned, handling    calls that are over; homes that are not back at their mailbox
 *
 * Claims
 *   1. the task is never entered while another thread has it, nor after its end;
 *   2. at most one waker wins a suspension, and none gets AlreadyScheduled unless another has won
 *      it;
 *   3. at the end the task was entered exactly once for each win (but for an early wake of a task
 *      that then ended instead of suspending): no wake is lost, none counts twice.
 *
 * Options: WAKERS, CALLS (each), SUSPENSIONS.
 *
 * Broken variants
 *   BROKEN_TEST_THEN_APPEND    a waker looks how many are before it, then appends: two can be first
 *   BROKEN_LOOK_BEFORE_PARK    the suspender looks for an early token, then appends PARK
 *   BROKEN_TOUCH_AFTER_PARK    the home is not done with the task when PARK is appended: suspend()
 *                              does it before it yields, or current_task and the counters are put
 *                              back after it
 *   BROKEN_CELL_READ_AGAIN     the suspender reads task.cell again after PARK: it may be the next
 *                              one
 *   BROKEN_EMPTIED             enter empties the list in place instead of replacing it
 *   BROKEN_NEW_CELL_AT_SUSPEND the fresh list is made when the task suspends, not when it is
 *                              entered: it throws an early token away
 */

#ifndef WAKERS
#define WAKERS 3
#endif
#ifndef CALLS
#define CALLS 1
#endif
#ifndef SUSPENSIONS
#define SUSPENSIONS 2
#endif
#define HOMES 2
#define WAKES (WAKERS * CALLS)
#define CELLS (SUSPENSIONS + 1)
#define LOOKED_AT 2             /* entries beyond these two are only counted */
#define NOBODY 0
#define PARK 255

typedef List { byte entry[LOOKED_AT]; byte size };

List cell[CELLS];
byte current;
chan mailbox[HOMES] = [WAKES] of { bit };

byte touching;
byte entries;
bool finished;
byte won[CELLS];
byte raised[CELLS];
byte returned;
byte handling;

#define home_of(token) (token % HOMES)

inline append(c, what)
{
    d_step {
        if
        :: cell[c].size < LOOKED_AT -> cell[c].entry[cell[c].size] = what
        :: else
        fi;
        cell[c].size++
    }
}

inline post(where)
{
    mailbox[where] ! 1
}

/* ---- any thread ---- */

proctype waker(byte me)
{
    byte k;
    byte token;
    byte c;
    byte before;

    for (k : 1 .. CALLS) {
        token = me * CALLS + k;
        c = current;
#ifdef BROKEN_TEST_THEN_APPEND
        before = cell[c].size;
        append(c, token);
        if
        :: before == 0 -> goto success
        :: before == 1 && cell[c].entry[0] == PARK -> post(home_of(token)); goto success
        :: else
        fi;
#else
        append(c, token);       /* pairs with the suspender: append PARK, look */
        if
        :: cell[c].entry[0] == token -> goto success
        :: else
        fi;
        if
        :: cell[c].entry[0] == PARK && cell[c].entry[1] == token ->
            post(home_of(token));
            goto success
        :: else
        fi;
#endif
        d_step { raised[c]++; returned++ };
        goto next;
success:
        atomic { won[c]++; returned++ };
next:   skip
    }
}

/* ---- home threads ---- */

proctype home(byte me)
{
    byte c;
    byte early;
    byte left;

    if
    :: me == 0 -> goto running
    :: else
    fi;
sleeping:
    if
    :: atomic { mailbox[me] ? _ -> handling++ }
    :: atomic {
        returned == WAKES && !handling && empty(mailbox[0]) && empty(mailbox[1]) -> goto over
    }
    fi;
    /* enter */
    d_step {
        assert(!touching && !finished);
        touching++;
        entries++
    };
#ifdef BROKEN_EMPTIED
    d_step { cell[0].entry[0] = NOBODY; cell[0].entry[1] = NOBODY; cell[0].size = 0 };
#elif !defined(BROKEN_NEW_CELL_AT_SUSPEND)
    c = current + 1;
    current = c;
#endif
running:
    if
    :: entries == SUSPENSIONS ->
        atomic { finished = true; touching--; handling--; goto sleeping }
    :: else
    fi;
    /* the coroutine yields */
#ifdef BROKEN_NEW_CELL_AT_SUSPEND
    c = current + 1;
    current = c;
#endif
#ifdef BROKEN_LOOK_BEFORE_PARK
    early = cell[c].entry[0];
    touching--;
    append(c, PARK);
    if
    :: early -> post(home_of(early))
    :: else
    fi;
#else
#ifndef BROKEN_TOUCH_AFTER_PARK
    touching--;                 /* nothing of the task is touched from here on */
#endif
    append(c, PARK);            /* pairs with the waker: append a token, look */
#ifdef BROKEN_CELL_READ_AGAIN
    c = current;
#endif
    early = cell[c].entry[0];
    if
    :: early != PARK -> post(home_of(early))
    :: else
    fi;
#ifdef BROKEN_TOUCH_AFTER_PARK
    touching--;
#endif
#endif
    atomic { early = 0; handling--; goto sleeping };
over:
    skip
}

init
{
    byte i;
    byte wins;

    atomic {
        touching = 1;
        handling = 1;
        for (i : 0 .. HOMES - 1) { run home(i) };
        for (i : 0 .. WAKERS - 1) { run waker(i) }
    };
    _nr_pr == 1;
    d_step {
        for (i : 0 .. CELLS - 1) {
#ifndef BROKEN_EMPTIED          /* it has one list for all suspensions */
            assert(won[i] <= 1);
            assert(!raised[i] || won[i]);
#endif
            wins = wins + won[i]
        };
        assert(entries == wins || (finished && entries + 1 == wins))
    }
}
