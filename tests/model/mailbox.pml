/*
 * The mailbox and its wake-up: many producers post, one home thread runs.
 *
 * What it models: the mailbox with a flag, for comparison; bell.pml models the code
 *   post(item), any thread          append; [if closed: refuse]; if asleep: clear it, write the
 *                                   eventfd
 *   the poll of the home thread     run a batch; raise asleep; pass through the deque's lock;
 *                                   look; sleep
 *   close, home thread              raise closed; pass through the deque's lock; run what is left
 *
 * Variables
 *   ready     the deque. Appending, popping and removing one item are atomic (the deque's own lock)
 *   asleep    "the home is about to sleep or sleeps"; raised by the home, cleared by home and
 *             producers
 *   closed    written once, by the home; a producer looks at it after *every* append
 *   event     the eventfd as an edge-triggered epoll reports it: a write sets it, the next
 *             epoll_wait returns at once and takes it; writes in between count once
 *   raise_buffered, close_buffered
 *             the home's store buffer: it has executed the store, and no other thread sees it yet.
 *             Process `memory` lets it out at any time; passing through the deque's lock forces it
 *             out. (A free-threaded build on a weak machine needs this; with the GIL both are
 *             always false.) The producer's own clear needs no buffer: write(2) takes locks in the
 *             kernel, so a thread that sees the event or a later state of it sees the clear.
 *   fate, settled, writes, raises, window             bookkeeping for the claims
 *
 * Claims
 *   1. every post is run exactly once, or (after close) refused exactly once, never both;
 *   2. none is left behind: the home sleeps forever only after everything is settled, else pan
 *      reports an invalid end state;
 *   3. no producer sees asleep while the home is awake, so posting to a home that is awake costs no
 *      write;
 *   4. with one producer, each raise costs at most one write (more interleaved producers can each
 *      have looked before the first clears: at most one write each. bell.pml does better).
 *
 * Options: PRODUCERS, ITEMS (each), CLOSING (the home may close after any batch).
 *
 * Broken variants
 *   BROKEN_LOOK_BEFORE_RAISE   the home looks at ready, then raises asleep
 *   BROKEN_WRITE_BEFORE_CLEAR  the producer writes, then clears asleep: the clear may hit the next
 *                              sleep
 *   BROKEN_LOOK_BEFORE_APPEND  the producer looks at asleep, then appends
 *   BROKEN_NO_PASS             the home does not pass through the deque's lock after the raise
 *   BROKEN_NO_CLEAR            the home leaves asleep raised when it has woken up
 *   BROKEN_INTERRUPTED         an exception from outside (a signal handler's) hits a producer
 *                              between clear and write. CPython runs handlers after a call
 *                              returns, so the write must be the next call after the clear, and a
 *                              C function
 * with CLOSING
 *   BROKEN_CLOSED_UNDER_ASLEEP closing raises asleep "for good", and producers look at closed only
 *                              if they see asleep. A producer that looked before the close clears
 *                              it later
 *   BROKEN_CLOSE_NO_PASS       the home does not pass through the deque's lock after raising closed
 *   BROKEN_CLOSE_FD            closing closes the eventfd, with a producer on its way to write to
 *                              it
 */

#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef ITEMS
#define ITEMS 2
#endif
#define POSTS (PRODUCERS * ITEMS)
#define TIMERS 1                /* wake-ups of the home that no producer caused */

chan ready = [POSTS] of { byte };
bool asleep;
bool closed;
bool event;

bool raise_buffered;
bool close_buffered;

mtype = { RAN, REFUSED };
mtype fate[POSTS];
byte settled;
byte writes;
byte raises;
bool window;                    /* from the home's raise to its clear */
bool fd_closed;

inline reach_memory()
{
    d_step {
        if :: raise_buffered -> asleep = true; raise_buffered = false :: else fi;
        if :: close_buffered -> closed = true; close_buffered = false :: else fi
    }
}

active proctype memory()
{
end:
    do
    :: atomic { raise_buffered -> asleep = true; raise_buffered = false }
    :: atomic { close_buffered -> closed = true; close_buffered = false }
    od
}

inline settle(item, how)
{
    d_step { assert(!fate[item]); fate[item] = how; settled++ }
}

/* ---- any thread ---- */

inline clear_asleep() { asleep = false }

inline write_eventfd()
{
    d_step {
        assert(!fd_closed);
        event = true;
        writes++;
        assert(PRODUCERS > 1 || writes <= raises)
    }
}

inline look_at_asleep()
{
    d_step {
        seen = asleep;
        assert(!seen || window)
    }
}

inline refuse_own_item()
{
    /* deque.remove: gone means that the closing home has run it */
    atomic {
        if
        :: ready ?? [eval(mine)] -> ready ?? eval(mine); settle(mine, REFUSED)
        :: else
        fi
    }
}

proctype producer(byte me)
{
    byte k;
    byte mine;
    bool seen;

    for (k : 0 .. ITEMS - 1) {
        mine = me * ITEMS + k;
#ifdef BROKEN_LOOK_BEFORE_APPEND
        look_at_asleep();
        ready ! mine;
#else
        ready ! mine;           /* pairs with the home: raise, pass, look */
#if defined(CLOSING) && !defined(BROKEN_CLOSED_UNDER_ASLEEP)
        if
        :: closed -> refuse_own_item(); goto next
        :: else
        fi;
#endif
        look_at_asleep();
#endif
        if
        :: seen ->
#ifdef BROKEN_CLOSED_UNDER_ASLEEP
            if
            :: closed -> refuse_own_item(); goto next
            :: else
            fi;
#endif
#ifdef BROKEN_WRITE_BEFORE_CLEAR
            write_eventfd();
            clear_asleep()
#elif defined(BROKEN_INTERRUPTED)
            clear_asleep();
            if
            :: fate[mine] -> goto next      /* its own item has run; the waiting one is another's */
            :: skip
            fi;
            write_eventfd()
#else
            clear_asleep();
            write_eventfd()
#endif
        :: else
        fi;
next:   seen = false
    }
}

/* ---- home thread ---- */

inline run_head()
{
    atomic { ready ? item; settle(item, RAN); item = 0 }
}

inline raise_asleep()
{
    d_step { raise_buffered = true; window = true; raises++ }
}

inline clear_at_home()
{
#ifndef BROKEN_NO_CLEAR
    d_step { raise_buffered = false; asleep = false; window = false }
#else
    d_step { reach_memory(); window = false }
#endif
}

proctype home()
{
    byte batch;
    byte item;
    byte timers;
    bool idle;

    do
    ::  batch = len(ready);
        do
        :: batch > 0 -> run_head(); batch--
        :: else -> break
        od;
#ifdef CLOSING
        if
        :: goto closing
        :: skip
        fi;
#endif
#ifdef BROKEN_LOOK_BEFORE_RAISE
        idle = empty(ready);
        raise_asleep();
        reach_memory();
#else
        raise_asleep();
#ifndef BROKEN_NO_PASS
        reach_memory();         /* the deque's lock; pairs with the producer: append, look */
#endif
        idle = empty(ready);
#endif
        if
        :: !idle -> event = false               /* epoll_wait with timeout 0 */
        :: else ->
            if
            :: atomic { event -> event = false }
            :: atomic { timers < TIMERS -> timers++ }
            :: settled == POSTS -> break        /* the test is over */
            fi
        fi;
        clear_at_home()
    od;
#ifdef CLOSING
    goto over;
closing:
    close_buffered = true;
#ifdef BROKEN_CLOSED_UNDER_ASLEEP
    reach_memory();             /* closed before asleep: the flaw is not in their order */
    raise_asleep();
#endif
#ifndef BROKEN_CLOSE_NO_PASS
    reach_memory();             /* the deque's lock; pairs with the producer: append, look */
#endif
    do
    :: atomic { nempty(ready) -> run_head() }
    :: empty(ready) -> break
    od;
#ifdef BROKEN_CLOSE_FD
    fd_closed = true;
#endif
    settled == POSTS;           /* producers that are still posting settle their own posts */
over:
#endif
    skip
}

init
{
    byte p;

    atomic {
        run home();
        for (p : 0 .. PRODUCERS - 1) { run producer(p) }
    }
}
