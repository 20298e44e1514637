/*
 * The big lock: a lock that is fair (the main thread takes it again
 * after each sleep, against workers that take it in a loop). FIFO hand-over, timeouts.
 *
 * What it models: src/homebound/_biglock.py
 *   raw = a lock that can be tried and that any thread may release; waiters = a deque
 *   acquire   1. waiters empty and raw.try_acquire(): own it
 *             2. else append my waiter (a new object for each acquire; its parker is the thread's)
 *             3. raw.try_acquire(): pass it on
 *             4. until granted: park. On a timeout remove my waiter: if it was not there any more,
 *                the lock has been handed to me: own it. On an exception, from the append on, the
 *                same, but: pass it on. (An exception between a successful try and what follows it
 *                would lose the lock, and is not modelled.)
 *   release   pass it on
 *   pass on   pop the head: grant it, unpark it; it owns raw, which stays locked, from the pop on.
 *             If there is none: raw.release(); pass through the deque's lock; look at waiters:
 *             empty: done. Else raw.try_acquire(): failing: done, for the one who has it passes it
 *             on, too. Else again
 *
 * Variables
 *   waiters   the deque, of waiter numbers. Appending, popping and removing one are atomic (the
 *             deque's own lock)
 *   raw       the raw lock is taken
 *   raw_buffered  which thread has released raw so that no other thread sees it yet: process
 *             `memory` lets it out at any time, an operation of this thread on raw or on the deque
 *             forces it out. (For try_acquire a lock that looks taken may fail without ordering
 *             anything, so on a weak machine "release raw, look at waiters" needs the pass. With
 *             the GIL: always NOBODY.)
 *   waiting   for each thread: the waiter of its present acquire
 *   granted   for each thread: the lock was handed to that waiter (to an earlier one: nobody looks)
 *   unparked  for each thread: its parker, one for all that the thread ever waits for; it
 *             remembers an unpark that comes before the park, or after the timeout that it raced
 *             with
 *   owner     who held() says has the lock; set by the owner itself
 *   inside    how many threads are in the critical section
 *   queued, seen   bit sets of threads: those whose waiter is in the deque; for each thread those
 *             of them that already were when it called acquire
 *   timeouts  how many of the timeouts and exceptions that the model allows have happened
 *
 * Claims
 *   1. at most one thread has the lock; held() is true in it and false in the others;
 *   2. no thread is parked for ever, and at the end raw is free and nobody in the deque (else: an
 *      invalid end state, or the assertion in init);
 *   3. who calls acquire while another is queued gets the lock after that one (or its timeout).
 *
 * Options: THREADS, ROUNDS (acquires of the first thread), OTHERS (of each other), TIMEOUTS (in
 * all).
 *
 * Broken variants
 *   BROKEN_NO_SECOND_LOOK      pass on does not look at waiters after raw.release()
 *   BROKEN_NO_THIRD_LOOK       pass on finds the deque empty when it has raw again (its waiter
 *                              timed out), releases raw, and does not look once more
 *   BROKEN_NO_TRY_WHEN_QUEUED  acquire parks without trying raw once more
 *   BROKEN_HANDED_TIMES_OUT    a waiter that times out when it has been handed the lock returns
 *                              False
 *   BROKEN_INTERRUPTED_IN_QUEUE  an exception right after the append leaves the waiter in the deque
 *   BROKEN_UNPARKED_IS_GRANTED the park is taken for a hand-over whoever ended it: an unpark that
 *                              comes after a timeout grants the next acquire
 *   BROKEN_UNPARK_BEFORE_GRANT who hands over unparks, then grants
 *   BROKEN_HANDER_SETS_OWNER   who hands over writes the new owner's name
 *   BROKEN_BARGING             acquire tries raw without looking at waiters first
 *   BROKEN_NO_PASS             pass on looks at waiters without passing through the deque's lock
 */

#ifndef THREADS
#define THREADS 3
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef TIMEOUTS
#define TIMEOUTS 1
#endif
#ifndef OTHERS
#define OTHERS 1
#endif
#define NOBODY 255

chan waiters = [THREADS] of { byte };
bool raw;
byte raw_buffered = NOBODY;
byte waiting[THREADS];
bool granted[THREADS];
bool unparked[THREADS];
byte owner = NOBODY;

byte inside;
byte queued;
byte seen[THREADS];
byte timeouts;

#define thread_of(waiter) (waiter / ROUNDS)
#define bit(thread) (1 << (thread))

active proctype memory()
{
end:
    do
    :: atomic { raw_buffered != NOBODY -> raw = false; raw_buffered = NOBODY }
    od
}

inline release_raw() { raw_buffered = me }

/* inside a d_step: what `me` does next on raw or on the deque comes after its release of raw */
inline force_out()
{
    if
    :: raw_buffered == me -> raw = false; raw_buffered = NOBODY
    :: else
    fi
}

inline pass() { d_step { force_out() } }

inline try_raw() { d_step { force_out(); got = !raw; raw = true } }

inline leave_queue(thread)
{
    queued = queued & ~bit(thread);
    for (t : 0 .. THREADS - 1) { seen[t] = seen[t] & ~bit(thread) };
    t = 0
}

inline pop_head()
{
    d_step {
        force_out();
        if
        :: nempty(waiters) ->
            waiters ? head;
            leave_queue(thread_of(head));
            assert(!seen[thread_of(head)])      /* claim 3 */
        :: empty(waiters) -> head = NOBODY
        fi
    }
}

inline grant(waiter)
{
    d_step {
        if
        :: waiting[thread_of(waiter)] == waiter -> granted[thread_of(waiter)] = true
        :: else
        fi
    }
}

inline unpark(waiter) { unparked[thread_of(waiter)] = true }

inline hand_over(waiter)
{
#ifdef BROKEN_HANDER_SETS_OWNER
    owner = thread_of(waiter);
#endif
#ifdef BROKEN_UNPARK_BEFORE_GRANT
    unpark(waiter);
    grant(waiter)
#else
    grant(waiter);
    unpark(waiter)
#endif
}

inline pass_on()
{
    do
    ::  pop_head();
        if
        :: head != NOBODY -> hand_over(head); break
        :: else
        fi;
        release_raw();
#ifdef BROKEN_NO_SECOND_LOOK
        break;
#endif
#ifdef BROKEN_NO_THIRD_LOOK
        if
        :: again -> break
        :: else -> again = true
        fi;
#endif
#ifndef BROKEN_NO_PASS
        pass();                 /* the deque's lock; pairs with acquire: append, try raw */
#endif
        if
        :: empty(waiters) -> break
        :: nempty(waiters)
        fi;
        try_raw();
        if
        :: got
        :: else -> break
        fi
    od;
    head = NOBODY;
    again = false
}

proctype thread(byte me)
{
    byte round;
    byte mine;
    byte head = NOBODY;
    byte t;
    bool got;
    bool again;
    bool raised;

    for (round : 0 .. (me -> OTHERS : ROUNDS) - 1) {
        atomic { mine = me * ROUNDS + round; waiting[me] = mine };
        /* acquire, 1 */
        d_step { got = empty(waiters); seen[me] = queued };
#ifdef BROKEN_BARGING
        got = true;
#endif
        if
        :: got -> try_raw()
        :: else
        fi;
        if
        :: got -> assert(!seen[me]); goto owned
        :: else
        fi;
        /* 2; pairs with pass on: release raw, pass, look */
        d_step { force_out(); waiters ! mine; queued = queued | bit(me) };
        if
        :: atomic { timeouts < TIMEOUTS -> timeouts++ };    /* an exception, as early as can be */
#ifdef BROKEN_INTERRUPTED_IN_QUEUE
            goto next;
#endif
            raised = true;
            goto withdraw
        :: skip
        fi;
#ifndef BROKEN_NO_TRY_WHEN_QUEUED
        /* 3 */
        try_raw();
        if
        :: got -> pass_on()
        :: else
        fi;
#endif
        /* 4 */
        do
        :: granted[me] -> goto owned
        :: else ->
            if
            :: atomic { unparked[me] -> unparked[me] = false };
#ifdef BROKEN_UNPARKED_IS_GRANTED
                goto owned
#endif
            :: atomic { timeouts < TIMEOUTS -> timeouts++ };
                if
                :: raised = true
                :: skip
                fi;
                break
            fi
        od;
withdraw:
        atomic {
            if
            :: waiters ?? [eval(mine)] ->
                waiters ?? eval(mine);
                leave_queue(me);
                goto next
            :: else
            fi
        };
#ifdef BROKEN_HANDED_TIMES_OUT
        goto next;
#endif
        if
        :: raised -> goto release
        :: else
        fi;
owned:
#ifndef BROKEN_HANDER_SETS_OWNER
        owner = me;
#else
        atomic {
            if
            :: owner == NOBODY -> owner = me
            :: else
            fi
        };
#endif
        d_step { inside++; assert(inside == 1 && owner == me) };
        d_step { inside--; owner = NOBODY };
release:
        pass_on();
next:
        atomic {
            got = false;
            raised = false;
            seen[me] = 0;
            granted[me] = false;
            waiting[me] = NOBODY
        }
    }
}

init
{
    byte i;

    atomic {
        for (i : 0 .. THREADS - 1) { run thread(i) }
    };
    _nr_pr == 2 && raw_buffered == NOBODY;      /* memory and init */
    assert(!raw && empty(waiters))
}
