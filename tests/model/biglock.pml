/*
 * The big lock: a lock that is fair (the main thread takes it again after each sleep, against
 * workers that take it in a loop), with timeouts, and never lost to an exception.
 *
 * What it models: src/homebound/_core/big_lock.py
 *   queue = a deque of threads' seats, whose head holds the lock
 *   acquire    1. append my seat; if it is the head the lock is mine
 *              2. else have a parker, and until my seat is the head: park
 *              On a timeout: take my seat out, wake the head. On an exception, anywhere from the
 *              append on: take it out if it is in, wake the head, raise
 *   release    3. take my seat off
 *              4. wake the head: read which it is, unpark its parker if it has one
 *              On an exception, anywhere: take my seat off if it is on, wake the head, raise
 *   take back  (thread 0, the main thread) acquire, but on an exception: append my seat if it is
 *              not in, wait for my turn, then raise
 *
 * Variables
 *   queue      the deque, of threads. Each of appending, taking off, taking out and reading the head
 *              is atomic (by the deque's own lock), and comes after what its thread did before
 *   has_parker for each thread: it has made its parker, in its first wait
 *   unparked   for each thread: its parker, one for all that the thread ever waits for; it
 *              remembers an unpark that comes before the park, or after the timeout that it raced
 *              with
 *   held       for each thread: what it believes of itself, `seat.has_big_lock`
 *   inside     how many threads are in the critical section
 *   timeouts, exceptions   how many of the allowed ones have happened
 *
 * Claims
 *   1. at most one thread is inside, it is the head of the queue, and believes that it holds it;
 *   2. no thread is parked forever, and at the end none is in the queue (else: an invalid end
 *      state, or the assertion in init): the lock is neither lost nor left taken;
 *   3. a thread that appends its seat later gets the lock later: the queue is a FIFO, and 1.;
 *   4. the main thread has the lock when it has taken it back, exceptions or not.
 *
 * Options: THREADS, ROUNDS (acquires of the first thread), OTHERS (of each other), TIMEOUTS,
 * EXCEPTIONS (in all), BACK (thread 0 takes back).
 *
 * Broken variants
 *   BROKEN_LOOK_BEFORE_APPEND  a thread that found the queue taken parks without another look
 *   BROKEN_PARKER_AFTER_LOOK   the parker is made after the last look at the head
 *   BROKEN_NO_WAKE             release takes the seat off, and wakes no thread
 *   BROKEN_LEAVES_UNTOLD       a thread that times out does not wake the head
 *   BROKEN_TIMEOUT_STAYS       a thread that times out leaves its seat in the queue
 *   BROKEN_UNPARKED_IS_TURN    an unpark is taken for the turn, whatever it was for
 *   BROKEN_INTERRUPTED_STAYS   an exception in acquire leaves the seat in the queue
 *   BROKEN_INTERRUPTED_UNTOLD  an exception in acquire takes the seat out, and wakes no thread
 *   BROKEN_RELEASE_CUT_SHORT   an exception in release is not handled
 *   BROKEN_BACK_TWICE          take back appends again after an exception, without a look
 *   BROKEN_BACK_RAISES         take back raises before it has the lock
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
#ifndef TIMEOUTS
#define TIMEOUTS 1
#endif
#ifndef EXCEPTIONS
#define EXCEPTIONS 1
#endif
#define NOBODY 255

chan queue = [THREADS + 1] of { byte };
bool has_parker[THREADS];
bool unparked[THREADS];
bool held[THREADS];

byte inside;
byte timeouts;
byte exceptions;

#ifdef BACK
#define takes_back (me == 0)
#else
#define takes_back false
#endif

#define may_raise atomic { exceptions < EXCEPTIONS -> exceptions++ }

inline read_head()
{
    d_step {
        if
        :: queue ? [head] -> queue ? <head>
        :: else -> head = NOBODY
        fi
    }
}

inline take_out(thread)
{
    d_step {
        if
        :: queue ?? [eval(thread)] -> queue ?? eval(thread)
        :: else
        fi
    }
}

/* Unparking a thread that is no longer the head, or is awake, does no harm. */
inline wake_head()
{
    read_head();
    if
    :: head != NOBODY ->
        d_step {
            if
            :: has_parker[head] -> unparked[head] = true
            :: else
            fi
        }
    :: else
    fi
}

proctype thread(byte me)
{
    byte round;
    byte head = NOBODY;
    bool got;

    for (round : 0 .. (me -> OTHERS : ROUNDS) - 1) {
#ifdef BROKEN_LOOK_BEFORE_APPEND
        got = empty(queue);
#endif
append_seat:
        queue ! me;                                     /* 1 */
#ifdef BROKEN_LOOK_BEFORE_APPEND
        if
        :: got -> goto owned
        :: else -> has_parker[me] = true; goto sleep
        fi;
#endif
        if
        :: may_raise -> goto interrupted
        :: skip
        fi;
        read_head();
        if
        :: head == me -> goto owned
        :: else
        fi;
again:
#ifndef BROKEN_PARKER_AFTER_LOOK
        has_parker[me] = true;                          /* 2 */
#endif
        do
        ::  read_head();
            if
            :: head == me -> break
            :: else
            fi;
            has_parker[me] = true;
sleep:
            if
            :: atomic { unparked[me] -> unparked[me] = false };
#ifdef BROKEN_UNPARKED_IS_TURN
                break
#endif
            :: atomic { !takes_back && timeouts < TIMEOUTS -> timeouts++ };
#ifndef BROKEN_TIMEOUT_STAYS
                take_out(me);
#endif
#ifndef BROKEN_LEAVES_UNTOLD
                wake_head();
#endif
                goto next
            :: may_raise -> goto interrupted
            fi
        od;
owned:
        held[me] = true;
        if
        :: may_raise -> goto interrupted
        :: skip
        fi;
returned:
        read_head();
        d_step { inside++; assert(inside == 1 && head == me && held[me]) };     /* claims 1, 4 */
        inside--;

        /* release */
        held[me] = false;
        if
        :: may_raise -> goto cut_short
        :: skip
        fi;
        take_out(me);                                   /* 3 */
        if
        :: may_raise -> goto cut_short
        :: skip
        fi;
#ifndef BROKEN_NO_WAKE
        wake_head();                                    /* 4 */
#endif
        goto next;

cut_short:
#ifndef BROKEN_RELEASE_CUT_SHORT
        take_out(me);
        wake_head();
#endif
        goto next;

interrupted:
        if
        :: takes_back ->
#ifdef BROKEN_BACK_RAISES
            goto returned;
#endif
#ifdef BROKEN_BACK_TWICE
            goto append_seat;
#endif
            if
            :: queue ?? [eval(me)] -> goto again
            :: else -> goto append_seat
            fi
        :: else
        fi;
        held[me] = false;
#ifndef BROKEN_INTERRUPTED_STAYS
        take_out(me);
#endif
#ifndef BROKEN_INTERRUPTED_UNTOLD
        wake_head();
#endif
next:
        skip
    }
}

init
{
    byte i;

    atomic {
        for (i : 0 .. THREADS - 1) { run thread(i) }
    };
    _nr_pr == 1;
    assert(empty(queue))
}
