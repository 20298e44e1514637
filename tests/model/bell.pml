/*
 * The mailbox with a bell for each sleep: the protocol of mailbox.pml, with the flag `asleep`
 * replaced by a fresh object a sleep. One look tells a producer all three of awake, asleep and
 * closed; a clear that comes late hits the sleep it was meant for; and a sleep costs one write,
 * from any number of producers and posts.
 *
 * What it models: Mailbox._post and _shut in src/homebound/_core/mailbox.py, LoopContext._ring in
 * _core/loop_context.py, Loop._sleep in _core/loop.py
 *   post(item), any thread          append; if self.bell is not empty: ring. That is:
 *                                   bell = self.bell; if it is CLOSED: take the item back; else
 *                                   pop its token (atomic): got it: write the eventfd; else nothing
 *   the poll of the home thread     run a batch; self.bell = [token]; pass through the deque's
 *                                   lock; look; sleep; self.bell = AWAKE, a list that is always
 *                                   empty
 *   close, home thread              self.bell = CLOSED; pass through the deque's lock; run what is
 *                                   left
 *
 * Variables
 *   ready     the deque. Appending, popping and removing one item are atomic (the deque's own lock)
 *   bell      self.bell: AWAKE, CLOSED, or the number of a sleep. Only the home writes it
 *   token     for each sleep: its list still holds the token. list.pop is atomic: one caller gets
 *             it
 *   held      for each sleep: how many producers refer to its list, which keeps it alive
 *   event     the eventfd as an edge-triggered epoll reports it (see mailbox.pml)
 *   buffered, bell_buffered
 *             the home's store buffer for `bell` (see mailbox.pml)
 *   fate, settled, written    bookkeeping for the claims
 *
 * Claims
 *   1. every post is run exactly once, or (after close) refused exactly once, never both;
 *   2. none is left behind (else: an invalid end state);
 *   3. a sleep costs at most one write, from whatever number of producers.
 *
 * Options: PRODUCERS, ITEMS (each). The home may close after any batch.
 *
 * Broken variants
 *   BROKEN_LOOK_BEFORE_RAISE   the home looks at ready, then sets the bell
 *   BROKEN_LOOK_BEFORE_APPEND  the producer looks at the bell, then appends
 *   BROKEN_NO_PASS             the home does not pass through the deque's lock after setting the
 *                              bell
 *   BROKEN_CLOSE_NO_PASS       ... after setting it to CLOSED
 *   BROKEN_SAME_BELL           the list is refilled for the next sleep, and the producer tests it,
 *                              then empties it (clear()): the clear may hit the next sleep
 *   BROKEN_TEST_THEN_CLEAR     the producer tests the list, then empties it: two writes a sleep
 */

#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef ITEMS
#define ITEMS 2
#endif
#define POSTS (PRODUCERS * ITEMS)
#define TIMERS 1                /* wake-ups of the home that no producer caused */
#define SLEEPS (PRODUCERS + 2)  /* objects for sleeps: no more can be in use at once */
#define AWAKE 0
#define CLOSED 255

chan ready = [POSTS] of { byte };
byte bell = AWAKE;
bool token[SLEEPS];
byte held[SLEEPS];              /* by how many producers: what garbage collection goes by */
bool event;

bool buffered;
byte bell_buffered;

mtype = { RAN, REFUSED };
mtype fate[POSTS];
byte settled;
bool written[SLEEPS];

inline reach_memory()
{
    d_step {
        if
        :: buffered -> bell = bell_buffered; buffered = false; bell_buffered = 0
        :: else
        fi
    }
}

active proctype memory()
{
end:
    do
    :: atomic { buffered -> bell = bell_buffered; buffered = false; bell_buffered = 0 }
    od
}

inline settle(item, how)
{
    d_step { assert(!fate[item]); fate[item] = how; settled++ }
}

/* ---- any thread ---- */

inline look_at_bell()
{
    d_step { rings = (bell == CLOSED || (bell != AWAKE && token[bell])) }
}

inline take_bell()
{
    d_step {
        seen = bell;
        if
        :: seen != AWAKE && seen != CLOSED -> held[seen]++
        :: else
        fi
    }
}

inline write_eventfd()
{
    d_step {
        event = true;
#ifndef BROKEN_SAME_BELL        /* caught by the item that it loses, not by this */
        assert(!written[seen]);
        written[seen] = true
#endif
    }
}

proctype producer(byte me)
{
    byte k;
    byte mine;
    byte seen = AWAKE;
    bool rings;
    bool won;

    for (k : 0 .. ITEMS - 1) {
        mine = me * ITEMS + k;
#ifdef BROKEN_LOOK_BEFORE_APPEND
        look_at_bell();
        ready ! mine;
#else
        ready ! mine;           /* pairs with the home: set the bell, pass, look */
        look_at_bell();
#endif
        if
        :: rings -> take_bell()
        :: else
        fi;
        if
        :: seen == AWAKE
        :: seen == CLOSED ->
            atomic {            /* deque.remove: gone means that the closing home has run it */
                if
                :: ready ?? [eval(mine)] -> ready ?? eval(mine); settle(mine, REFUSED)
                :: else
                fi
            }
        :: else ->
#if defined(BROKEN_SAME_BELL) || defined(BROKEN_TEST_THEN_CLEAR)
            won = token[seen];
            token[seen] = false;
#else
            d_step { won = token[seen]; token[seen] = false };
#endif
            if
            :: won -> write_eventfd()
            :: else
            fi;
            d_step { held[seen]--; won = false }
        fi;
        atomic { seen = AWAKE; rings = false }
    }
}

/* ---- home thread ---- */

inline run_head()
{
    atomic { ready ? item; settle(item, RAN); item = 0 }
}

inline set_bell()
{
    d_step {
#ifndef BROKEN_SAME_BELL
        sleep = 1;
        do
        :: held[sleep] -> sleep++
        :: else -> break
        od;
        written[sleep] = false;
#endif
        token[sleep] = true;
        buffered = true;
        bell_buffered = sleep
    }
}

proctype home()
{
    byte batch;
    byte item;
    byte timers;
    byte sleep = 1;
    bool idle;

    do
    ::  batch = len(ready);
        do
        :: batch > 0 -> run_head(); batch--
        :: else -> break
        od;
        if
        :: break
        :: skip
        fi;
#ifdef BROKEN_LOOK_BEFORE_RAISE
        idle = empty(ready);
        set_bell();
        reach_memory();
#else
        set_bell();
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
            :: settled == POSTS -> goto over    /* the test is over */
            fi
        fi;
        d_step { buffered = false; bell_buffered = 0; bell = AWAKE; idle = false }
    od;
    atomic { buffered = true; bell_buffered = CLOSED };
#ifndef BROKEN_CLOSE_NO_PASS
    reach_memory();             /* the deque's lock; pairs with the producer: append, look */
#endif
    do
    :: atomic { nempty(ready) -> run_head() }
    :: empty(ready) -> break
    od;
    settled == POSTS;           /* producers that are still posting settle their own posts */
over:
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
