/*
 * The wake cell: which thread posts a task that is woken from several threads, perhaps before it
 * has suspended (two threads racing to wake it: exactly one succeeds; and the early wake).
 *
 * What it models: src/homebound/_core/cell.py, Task._run in _core/task.py
 *   wake(task, ctx), any thread     cell = task.cell; append a token of its own; look at entries
 *                                   0 and 1: mine is entry 0: early, return: the suspender will
 *                                   post the task; mine is entry 1 and SUSPENDED is entry 0: post
 *                                   the task to ctx; else: raise AlreadyScheduled
 *   the suspender, home thread      the coroutine has yielded: append SUSPENDED to the cell made at
 *                                   the last enter; if entry 0 is not SUSPENDED: post the task where
 *                                   that token says
 *   enter, home thread              take the task from the mailbox; task.cell = [] (a new list);
 *                                   run it
 *
 * The task runs at home 0 in the beginning. It suspends SUSPENSIONS times, then ends. There are two
 * homes, so that a wake may take the task to another thread while the first is not back from the
 * suspension.
 *
 * Variables
 *   cell      one list a suspension; entries 0 and 1 never change once there. Appending is atomic
 *             (the list's own lock)
 *   current   task.cell: which of the lists it is
 *   mailbox   for each home: the posts of this task in it (FIFO and wake-up: mailbox.pml)
 *   touching  how many threads are between enter and the point where the suspender is done with the
 *             task
 *   entries, finished     how often the task was entered after a wake; whether it has ended
 *   won, raised           for each cell: wakers that returned, and that got AlreadyScheduled
 *   returned, handling    calls that are over; homes that are not back at their mailbox
 *   wait, armed, waited   how many waits the task has begun; the one that a completion is for (the
 *             first: a Waker's or a TaskWaiter's); for each cell, the wait that suspended in it
 *
 * A wait may end without a suspension that others can wake it from. If it was cancelled before it
 * gave up control, the home appends a token of its own in place of SUSPENDED, and the winner posts the
 * task. If it failed before that, the home appends LEFT and looks at entry 0; if that is LEFT or a
 * completion, task.cell = the next list, and a waker that finds itself in the old one goes on
 * there.
 *
 * Claims
 *   1. the task is never entered while another thread has it, nor after its end;
 *   2. at most one waker wins a suspension, and none gets AlreadyScheduled unless another has won
 *      it;
 *   3. at the end the task was entered exactly once for each win (except an early wake of a task
 *      that then ended instead of suspending): no wake is lost, none counts twice;
 *   4. a completion ends the wait that it is for, and no other.
 *
 * Options: WAKERS, CALLS (each), SUSPENSIONS, COMPLETES (the first wait may be completed, fail before
 * its suspension, or be cancelled before it).
 *
 * Broken variants
 *   BROKEN_TEST_THEN_APPEND    a waker looks how many are before it, then appends: two can be first
 *   BROKEN_LOOK_BEFORE_SUSPENDED   the suspender looks for an early token, then appends SUSPENDED
 *   BROKEN_TOUCH_AFTER_SUSPENDED   the home is not done with the task when SUSPENDED is appended:
 *                              suspend() does it before it yields, or current_task and the counters are put
 *                              back after it
 *   BROKEN_CELL_READ_AGAIN     the suspender reads task.cell again after SUSPENDED: it may be the
 *                              next one
 *   BROKEN_EMPTIED             enter empties the list in place instead of replacing it
 *   BROKEN_NEW_CELL_AT_SUSPEND the fresh list is made when the task suspends, not when it is
 *                              entered: an early token is lost
 *   BROKEN_PASSED_OVER         a task that was cancelled before is posted, and its cell stays
 *   BROKEN_NOT_RENEWED         a wait that failed leaves its cell as it is
 *   BROKEN_RENEWED_UNSEEN      it replaces it without a mark: an early wake in there is lost
 *   BROKEN_LEFT_LOSES          a waker that finds LEFT raises AlreadyScheduled
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
#ifdef COMPLETES
#define CELLS (SUSPENSIONS + 2)
#else
#define CELLS (SUSPENSIONS + 1)
#endif
#define LOOKED_AT 2             /* entries beyond these two are only counted */
#define NOBODY 0
#define SUSPENDED 255
#define LEFT 254
#define COMPLETION 253
#define OWN 252

typedef List { byte entry[LOOKED_AT]; byte size };

List cell[CELLS];
byte current;
chan mailbox[HOMES] = [WAKES + 2] of { bit };

byte touching;
byte entries;
bool finished;
byte won[CELLS];
byte raised[CELLS];
byte returned;
byte handling;
#ifdef COMPLETES
byte wait;
byte armed;
byte armed_cell;
byte waited[CELLS];
byte others;                    /* entries that no wake has won */
bool completed = false;
bool struck;                    /* the one cancellation, or failure, has happened */
#else
#define completed true
#endif

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
        :: before == 1 && cell[c].entry[0] == SUSPENDED -> post(home_of(token)); goto success
        :: else
        fi;
#else
again:  append(c, token);       /* pairs with the suspender: append SUSPENDED, look */
        if
        :: cell[c].entry[0] == token -> goto success
        :: else
        fi;
        if
        :: cell[c].entry[0] == SUSPENDED && cell[c].entry[1] == token ->
            post(home_of(token));
            goto success
        :: else
        fi;
#ifdef COMPLETES
        if
#ifndef BROKEN_LEFT_LOSES
        :: cell[c].entry[0] == LEFT -> c = c + 1; goto again
#endif
        :: cell[c].entry[0] == COMPLETION && current != c -> c = current; goto again
        :: else
        fi;
#endif
#endif
        d_step { raised[c]++; returned++ };
        goto next;
success:
        atomic { won[c]++; returned++ };
next:   skip
    }
}

#ifdef COMPLETES
proctype completer()
{
    armed;
    append(armed_cell, COMPLETION);
    if
    :: cell[armed_cell].entry[0] == SUSPENDED && cell[armed_cell].entry[1] == COMPLETION ->
        assert(waited[armed_cell] == armed);
        others++;
        post(0)
    :: else
    fi;
    completed = true
}
#endif

/* ---- home threads ---- */

proctype home(byte me)
{
    byte c;
    byte early;
    byte left;
#ifdef BROKEN_PASSED_OVER
    bool stayed;
#endif

    if
    :: me == 0 -> goto running
    :: else
    fi;
sleeping:
    if
    :: atomic { mailbox[me] ? _ -> handling++ }
    :: atomic {
        returned == WAKES && completed && !handling && empty(mailbox[0]) && empty(mailbox[1]) -> goto over
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
#ifdef BROKEN_PASSED_OVER
    if
    :: struck && !stayed -> stayed = true; c = current; goto running
    :: else
    fi;
#endif
    c = current + 1;
    current = c;
#endif
running:
    if
    :: entries == SUSPENSIONS ->
        atomic { finished = true; touching--; handling--; goto sleeping }
    :: else
    fi;
#ifdef COMPLETES
    wait++;
    if
    :: wait == 1 -> atomic { armed_cell = c; armed = 1 }
    :: else
    fi;
    if
    :: true
    :: wait == 1 && !struck ->          /* it fails before it suspends */
        struck = true;
#ifdef BROKEN_RENEWED_UNSEEN
        c = c + 1;
        current = c;
#elif !defined(BROKEN_NOT_RENEWED)
        append(c, LEFT);                /* pairs with the waker */
        if
        :: cell[c].entry[0] == LEFT || cell[c].entry[0] == COMPLETION -> c = c + 1; current = c
        :: else
        fi;
#endif
        goto running
    :: wait == 1 && !struck ->          /* it was cancelled before it suspends */
        struck = true;
#ifdef BROKEN_PASSED_OVER
        others++;
        touching--;
        post(me);
#else
        touching--;
        append(c, OWN);
        early = cell[c].entry[0];
        if
        :: early == OWN || early == COMPLETION -> others++
        :: else
        fi;
        post(home_of(early));
#endif
        atomic { early = 0; handling--; goto sleeping }
    fi;
#endif
    /* the coroutine yields */
#ifdef BROKEN_NEW_CELL_AT_SUSPEND
    c = current + 1;
    current = c;
#endif
#ifdef BROKEN_LOOK_BEFORE_SUSPENDED
    early = cell[c].entry[0];
    touching--;
    append(c, SUSPENDED);
    if
    :: early -> post(home_of(early))
    :: else
    fi;
#else
#ifndef BROKEN_TOUCH_AFTER_SUSPENDED
    touching--;                 /* nothing of the task is touched from here on */
#endif
#ifdef COMPLETES
    waited[c] = wait;
#endif
    append(c, SUSPENDED);            /* pairs with the waker: append a token, look */
#ifdef BROKEN_CELL_READ_AGAIN
    c = current;
#endif
    early = cell[c].entry[0];
    if
#ifdef COMPLETES
    :: early == COMPLETION ->
        assert(wait == armed);
        others++;
        post(home_of(early))
    :: early != SUSPENDED && early != COMPLETION -> post(home_of(early))
#else
    :: early != SUSPENDED -> post(home_of(early))
#endif
    :: else
    fi;
#ifdef BROKEN_TOUCH_AFTER_SUSPENDED
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
#ifdef COMPLETES
        run completer();
#endif
        for (i : 0 .. WAKERS - 1) { run waker(i) }
    };
    _nr_pr == 1;
    d_step {
        for (i : 0 .. CELLS - 1) {
#ifndef BROKEN_EMPTIED          /* it has one list for all suspensions */
            assert(won[i] <= 1);
#ifdef COMPLETES
            assert(!raised[i] || won[i] || cell[i].entry[0] == COMPLETION
                || cell[i].entry[0] == OWN || cell[i].entry[1] == COMPLETION);
#else
            assert(!raised[i] || won[i]);
#endif
#endif
            wins = wins + won[i]
        };
#ifdef COMPLETES
        wins = wins + others;
#endif
        assert(entries == wins || (finished && entries + 1 == wins))
    }
}
