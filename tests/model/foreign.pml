/*
 * The mailbox on a foreign loop, whose sleep is not visible: a home "sleeps" when the loop has
 * promised no run of its mailbox. About one call_soon_threadsafe a burst.
 *
 * What it models: GuestContext._ring and _run_batch in src/homebound/_core/guest_context.py
 *   post(item), any thread          append; if self.bell is not empty: call_soon_threadsafe(
 *                                   run_batch), then empty the list that was seen
 *   run_batch, called by the loop   self.bell = [token]; pass through the deque's lock; run what is
 *                                   there now (an item may queue another one, without looking at
 *                                   the bell); if ready is not empty, and self.bell is not:
 *                                   call_soon(run_batch), then empty the list
 * The loop is told first: a producer that is interrupted by a finaliser of its own thread has told
 * it, or has left the bell up for the finaliser's post.
 *
 * Variables
 *   ready     the deque. Appending and popping one item are atomic (the deque's own lock)
 *   bell      self.bell: the number of a run of the mailbox. Only the home writes it
 *   up        for each number: its list still holds the token
 *   promised  the loop has been told to call run_batch; several calls count once, the least that it
 *             may do
 *   bell_buffered   the home's store buffer for `bell` (see mailbox.pml)
 *   ran, done, calls, raises    bookkeeping for the claims; the last bell put up is number `raises`
 *
 * Claims
 *   1. every item is run, exactly once; none is left while no run_batch is promised (else: an
 *      invalid end state);
 *   2. a bell costs each producer at most one call to the loop, and one producer's bells together
 *      cost no more calls than there are bells.
 *
 * Options: PRODUCERS, ITEMS (each). Item 0 queues one more when it is run.
 *
 * Broken variants
 *   BROKEN_LOOK_BEFORE_APPEND  the producer looks at the bell, then appends
 *   BROKEN_SAME_BELL           one list is refilled for each run: emptying it late hits the next
 *   BROKEN_RAISE_LAST          the home puts up the bell when it has run its batch and looked
 *   BROKEN_NO_PASS             the home does not pass through the deque's lock after that
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
#define BELLS (2 * POSTS + 4)

chan ready = [POSTS + 1] of { byte };
byte bell;
bool bell_buffered;
bool up[BELLS];
bool promised;

bool ran[POSTS + 1];
byte done;
byte calls;
byte raises;

active proctype memory()
{
end:
    do
    :: atomic { bell_buffered -> bell = raises; bell_buffered = false }
    od
}

inline put_up_bell()
{
    d_step {
#ifndef BROKEN_SAME_BELL
        raises++;
        assert(raises < BELLS);
        bell_buffered = true;
#endif
        up[raises] = true
    }
}

inline pass()
{
    d_step {
        if
        :: bell_buffered -> bell = raises; bell_buffered = false
        :: else
        fi
    }
}

proctype producer(byte me)
{
    byte k;
    byte seen;
    byte last = BELLS;          /* the bell of its last call */

    for (k : 0 .. ITEMS - 1) {
#ifdef BROKEN_LOOK_BEFORE_APPEND
        d_step { seen = (up[bell] -> bell : BELLS) };
        ready ! (me * ITEMS + k);
#else
        ready ! (me * ITEMS + k);       /* pairs with the home: put up the bell, pass, look */
        d_step { seen = (up[bell] -> bell : BELLS) };
#endif
        if
        :: seen < BELLS ->
            d_step {
                promised = true;
                calls++;
#ifndef BROKEN_SAME_BELL
                assert(seen != last);
                assert(PRODUCERS > 1 || calls <= raises + 1);
#endif
                last = seen
            };
            up[seen] = false
        :: else
        fi;
        seen = 0
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
        put_up_bell();
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
        if
        :: more -> promised = true
        :: else -> put_up_bell()
        fi;
#else
        if
        :: more && up[raises] ->
            promised = true;
            up[raises] = false
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
        up[0] = true;
        run home();
        for (p : 0 .. PRODUCERS - 1) { run producer(p) }
    }
}
