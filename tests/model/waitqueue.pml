/*
 * The wait queue: hand-over to the longest waiter, while waiters are cancelled and their homes
 * end. Modelled as a lock: one token in the stock. A semaphore has more of them; a queue's items
 * and free slots are no different.
 *
 * What it models: src/homebound/_sync/wait_queue.py, _sync/lock.py
 *   acquire   1. no waiter, and the token can be popped: own it
 *             2. else join, under the guard: append my waiter; pass through the stock's lock; if I
 *                am the head and can pop the token: remove me, granted
 *             3. sleep until woken, and then it is mine. Cancelled instead: leave. My home ends: I
 *                never run again, and the thread that notices calls leave for me
 *   release   append the token; a waiter: serve
 *   serve     while there is a waiter: under the guard: the token can be popped: remove the head,
 *             granted = true; after the guard: wake it; its home has ended: leave for it
 *   leave     under the guard: not granted: remove it, and serve. Granted: the first time: release
 *
 * Variables
 *   stock     how many tokens lie in it. Appending and popping are atomic (the deque's own lock)
 *   waiters   the deque, of waiter numbers: a new one for each acquire. Written under the guard
 *   unseen    a waiter that was appended so that no other thread sees it yet: process `memory` lets
 *             it be seen at any time; the pass, and releasing the guard, force it (with the GIL:
 *             always NOBODY)
 *   granted, left   of each waiter; written under the guard
 *   waiting   for each thread: the waiter of its present acquire
 *   woken     for each thread: it was woken for that waiter (how: wakecell.pml, bell.pml)
 *   dead      for each thread: its home has ended
 *   inside    how many threads have the lock
 *   queued, seen   bit sets of threads: those in the deque; for each thread those of them that it
 *             could see when it called acquire
 *
 * Claims
 *   1. at most one thread has the lock, and there is never a second token;
 *   2. no thread sleeps forever, and at the end the token is there and no thread waits (else: an
 *      invalid end state, or the assertion in init);
 *   3. a thread that calls acquire while another can be seen waiting gets the lock after that one.
 *
 * Options: THREADS, ROUNDS (acquires of the first thread), OTHERS (of each other), CANCELS, DEATHS (in
 * all); UNTOLD: waking a waiter does not tell that its home has ended (as with tasks of ours, which
 * are abandoned, and leave).
 *
 * Broken variants
 *   BROKEN_LOOK_BEFORE_GIVE    release looks for a waiter, then appends the token
 *   BROKEN_TRY_BEFORE_JOIN     join tries for the token, then appends the waiter
 *   BROKEN_NO_PASS             join does not pass through the stock's lock
 *   BROKEN_BARGING             acquire tries for the token without looking for a waiter
 *   BROKEN_GRANT_AFTER_GUARD   serve writes granted when it has released the guard
 *   BROKEN_WAKE_BEFORE_GRANT   serve wakes the head, then removes and grants it
 *   BROKEN_CANCELLED_KEEPS     a waiter that was granted and then cancelled does not release
 *   BROKEN_CANCELLED_GIVES     a waiter that was cancelled releases, granted or not
 *   BROKEN_DEAD_STAYS          a home that ends leaves its waiters in the queue
 *   BROKEN_DEAD_KEEPS          a home that ends after the wake-up was posted keeps what was granted
 *   BROKEN_LEFT_TWICE          two threads that notice the end of a home both release
 */

#ifndef THREADS
#define THREADS 3
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef OTHERS
#define OTHERS 1
#endif
#ifndef CANCELS
#define CANCELS 1
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#define WAITERS (THREADS * ROUNDS)
#define NOBODY 255

byte stock = 1;
chan waiters = [THREADS] of { byte };
byte unseen = NOBODY;
bool guard;
bool granted[WAITERS];
bool left[WAITERS];
byte waiting[THREADS];
bool woken[THREADS];
bool dead[THREADS];

byte inside;
byte queued;
byte seen[THREADS];
byte cancels;
byte deaths;

#define thread_of(waiter) (waiter / ROUNDS)
#define bit(thread) (1 << (thread))
#define somebody_waits (len(waiters) > (unseen != NOBODY))

active proctype memory()
{
end:
    do
    :: atomic { unseen != NOBODY -> unseen = NOBODY }
    od
}

inline take_guard() { atomic { !guard -> guard = true } }

inline leave_guard() { d_step { unseen = NOBODY; guard = false } }

inline give() { d_step { stock++; assert(stock == 1) } }       /* claim 1 */

inline try_take()
{
    d_step {
        got = stock > 0;
        if
        :: got -> stock--
        :: else
        fi
    }
}

/* inside a d_step */
inline left_queue(thread)
{
    queued = queued & ~bit(thread);
    for (t : 0 .. THREADS - 1) { seen[t] = seen[t] & ~bit(thread) };
    t = 0
}

/* inside a d_step; `ok`: it can be woken */
inline wake(waiter)
{
#ifdef UNTOLD
    ok = true;
#else
    ok = !dead[thread_of(waiter)];
#endif
    if
    :: ok && !dead[thread_of(waiter)] && waiting[thread_of(waiter)] == waiter -> woken[thread_of(waiter)] = true
    :: else
    fi
}

inline serve()
{
    do
    :: !somebody_waits -> break
    :: else ->
        take_guard();
        if
        :: empty(waiters) -> leave_guard(); break
        :: nempty(waiters)
        fi;
#ifdef BROKEN_WAKE_BEFORE_GRANT
        d_step { waiters ? <head>; wake(head) };
#endif
        try_take();
        if
        :: !got -> leave_guard(); break
        :: got
        fi;
        d_step {
            waiters ? head;
            left_queue(thread_of(head));
            assert(!seen[thread_of(head)]);     /* claim 3 */
#ifndef BROKEN_GRANT_AFTER_GUARD
            granted[head] = true
#endif
        };
        leave_guard();
#ifdef BROKEN_GRANT_AFTER_GUARD
        granted[head] = true;
#endif
#ifdef BROKEN_WAKE_BEFORE_GRANT
        ok = true;
#else
        d_step { wake(head) };
#endif
        if
        :: ok -> skip
        :: else ->                              /* leave, for it */
            take_guard();
            got = !left[head];
            left[head] = true;
            leave_guard();
#ifdef BROKEN_LEFT_TWICE
            got = true;
#endif
            if
            :: got -> give()
            :: else
            fi
        fi
    od;
    atomic { head = 0; got = false; ok = false }
}

inline release()
{
#ifdef BROKEN_LOOK_BEFORE_GIVE
    ok = somebody_waits;
    give();
    if
    :: ok -> serve()
    :: else
    fi;
    ok = false
#else
    give();
    serve()                     /* looks first; pairs with join: append, pass, try */
#endif
}

proctype thread(byte me)
{
    byte round;
    byte mine;
    byte head;
    byte t;
    bool got;
    bool ok;

    for (round : 0 .. (me -> OTHERS : ROUNDS) - 1) {
        atomic { mine = me * ROUNDS + round; waiting[me] = mine };
        /* 1 */
        d_step {
            got = !somebody_waits;
            seen[me] = queued & ~(unseen == NOBODY -> 0 : bit(thread_of(unseen)))
        };
#ifdef BROKEN_BARGING
        got = true;
#endif
        if
        :: got -> try_take()
        :: else
        fi;
        if
        :: got -> assert(!seen[me]); goto owned
        :: else
        fi;
        /* 2 */
        take_guard();
#ifdef BROKEN_TRY_BEFORE_JOIN
        got = false;
        if
        :: empty(waiters) -> try_take()
        :: nempty(waiters)
        fi;
        if
        :: got -> granted[mine] = true; leave_guard(); goto owned
        :: else
        fi;
#endif
        d_step { waiters ! mine; queued = queued | bit(me); unseen = mine };
#ifndef BROKEN_TRY_BEFORE_JOIN
#ifndef BROKEN_NO_PASS
        unseen = NOBODY;        /* the pass; pairs with release: append the token, look */
#endif
        if
        :: waiters ? [eval(mine)] -> try_take()
        :: else -> got = false
        fi;
        if
        :: got ->
            d_step { waiters ? head; left_queue(me); head = 0; granted[mine] = true };
            leave_guard();
            goto owned
        :: else
        fi;
#endif
        leave_guard();
        /* 3 */
        if
        :: woken[me] -> assert(granted[mine]); goto owned
        :: atomic { cancels < CANCELS -> cancels++ }
        :: atomic { deaths < DEATHS -> deaths++; dead[me] = true }
        fi;
        /* leave */
#ifdef BROKEN_DEAD_STAYS
        if
        :: dead[me] && !granted[mine] -> goto over
        :: else
        fi;
#endif
        take_guard();
        if
        :: !granted[mine] && !left[mine] ->
            d_step {
                left[mine] = true;
                assert(waiters ?? [eval(mine)]);
                waiters ?? eval(mine);
                left_queue(me)
            };
            leave_guard();
#ifdef BROKEN_CANCELLED_GIVES
            give();
#endif
            serve()
        :: else ->
            got = !left[mine];
            left[mine] = true;
            leave_guard();
#ifdef BROKEN_CANCELLED_KEEPS
            if
            :: !dead[me] -> got = false
            :: else
            fi;
#endif
#ifdef BROKEN_DEAD_KEEPS
            if
            :: dead[me] -> got = false
            :: else
            fi;
#endif
#ifdef BROKEN_LEFT_TWICE
            got = true;
#endif
            if
            :: got -> release()
            :: else
            fi
        fi;
        if
        :: dead[me] -> goto over
        :: else -> goto next
        fi;
owned:
        atomic { inside++; assert(inside == 1) };
        inside--;
        release();
next:
        atomic { got = false; woken[me] = false; seen[me] = 0; waiting[me] = NOBODY }
    };
over:
    skip
}

init
{
    byte i;

    atomic {
        for (i : 0 .. THREADS - 1) { run thread(i) }
    };
    _nr_pr == 2 && unseen == NOBODY;    /* memory and init */
    assert(stock == 1 && empty(waiters))
}
