/*
 * The mailbox on a foreign loop, whose sleep is not visible: a home "sleeps" when the loop has
 * promised no run of its mailbox. One call_soon_threadsafe a burst.
 *
 * What it models: GuestContext._ring and _run_batch in src/homebound/_core/guest_context.py, with a
 * flag in place of the bell (bell.pml)
 *   post(item), any thread          append; if asleep: clear it, call_soon_threadsafe(run_batch)
 *   run_batch, called by the loop   raise asleep; pass through the deque's lock; run what is there
 *                                   now (an item may queue another one, without looking at
 *                                   asleep); if ready is not empty and asleep is raised: clear it,
 *                                   call_soon(run_batch)
 *
 * Variables
 *   ready     the deque. Appending and popping one item are atomic (the deque's own lock)
 *   asleep    no run_batch is promised; raised by the home, cleared by home and producers
 *   promised  the loop has been told to call run_batch; several calls count once, the least that it
 *             may do
 *   raise_buffered   the home's store buffer (see mailbox.pml)
 *   ran, done, calls, raises    bookkeeping for the claims
 *
 * Claims
 *   1. every item is run, exactly once; none is left while no run_batch is promised (else: an
 *      invalid end state);
 *   2. with one producer, each raise costs it at most one call to the loop.
 *
 * Options: PRODUCERS, ITEMS (each). Item 0 queues one more when it is run.
 *
 * Broken variants
 *   BROKEN_LOOK_BEFORE_APPEND  the producer looks at asleep, then appends
 *   BROKEN_CALL_BEFORE_CLEAR   the producer tells the loop, then clears asleep
 *   BROKEN_RAISE_LAST          the home raises asleep when it has run its batch and looked
 *   BROKEN_NO_PASS             the home does not pass through the deque's lock after the raise
 *   BROKEN_NO_LAST_LOOK        the home does not look at ready after its batch
 */

#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef ITEMS
#define ITEMS 2
#endif
#define POSTS (PRODUCERS * ITEMS)
#define OWN POSTS               /* the item that the home queues */

chan ready = [POSTS + 1] of { byte };
bool asleep = true;
bool promised;
bool raise_buffered;

bool ran[POSTS + 1];
byte done;
byte calls;
byte raises = 1;

active proctype memory()
{
end:
    do
    :: atomic { raise_buffered -> asleep = true; raise_buffered = false }
    od
}

inline pass()
{
    d_step {
        if
        :: raise_buffered -> asleep = true; raise_buffered = false
        :: else
        fi
    }
}

inline call_soon_threadsafe()
{
    d_step { promised = true; calls++; assert(PRODUCERS > 1 || calls <= raises) }
}

proctype producer(byte me)
{
    byte k;
    bool seen;

    for (k : 0 .. ITEMS - 1) {
#ifdef BROKEN_LOOK_BEFORE_APPEND
        seen = asleep;
        ready ! (me * ITEMS + k);
#else
        ready ! (me * ITEMS + k);       /* pairs with the home: raise, pass, look */
        seen = asleep;
#endif
        if
        :: seen ->
#ifdef BROKEN_CALL_BEFORE_CLEAR
            call_soon_threadsafe();
            asleep = false
#else
            asleep = false;
            call_soon_threadsafe()
#endif
        :: else
        fi;
        seen = false
    }
}

proctype home()
{
    byte batch;
    byte item;
    bool more;

    do
    :: done == POSTS + 1 -> break               /* the test is over */
    :: atomic { promised -> promised = false };
#ifndef BROKEN_RAISE_LAST
        d_step { raise_buffered = true; raises++ };
#ifndef BROKEN_NO_PASS
        pass();                 /* the deque's lock; pairs with the producer: append, look */
#endif
#endif
        batch = len(ready);
        do
        :: batch > 0 ->
            atomic {
                ready ? item;
                assert(!ran[item]);
                ran[item] = true;
                done++
            };
            if
            :: item == 0 -> ready ! OWN
            :: else
            fi;
            item = 0;
            batch--
        :: else -> break
        od;
#ifndef BROKEN_NO_LAST_LOOK
        more = nempty(ready);
#endif
#ifdef BROKEN_RAISE_LAST
        d_step { asleep = !more; raises++ };
        if
        :: more -> promised = true
        :: else
        fi;
#else
        if
        :: more && (asleep || raise_buffered) ->
            d_step { raise_buffered = false; asleep = false };
            promised = true
        :: else
        fi;
#endif
        more = false
    od
}

init
{
    byte p;

    atomic {
        run home();
        for (p : 0 .. PRODUCERS - 1) { run producer(p) }
    }
}
