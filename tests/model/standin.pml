/*
 * The stand-in: a worker that holds the big lock is the main context's home while the main thread
 * sleeps, on top of the mailbox's wake-up (mailbox.pml) and the big lock
 * (biglock.pml).
 *
 * What it models: StandIn in src/homebound/_core/stand_in.py, with Loop._sleep in _core/loop.py and
 *   put_up_bell in _core/mailbox.py (raise asleep, pass, look). By the names of StandIn:
 *     standin: acquire ... attended = true   begins, after the big lock's acquire
 *     standin: main_waiting -> ...           ends, before its release
 *     standin_sleep                          sleep
 *     main: main_waiting, release            home_sleeps and lend; main_waiting is sleeps_until
 *     main: acquire, clear_at_home           come_back
 *     main: the yield                        Loop._give_way: lend, come_back
 *   post(item), any thread          append; if asleep: clear it, write the eventfd
 *   the main thread's poll          with the big lock: run a batch; raise asleep; pass through the
 *                                   deque's lock; look: work: clear asleep, go on (it may release
 *                                   the lock and take it again, for others). No work: main_waiting;
 *                                   release the lock; epoll_wait; acquire the lock; clear
 *                                   main_waiting and asleep
 *   a stand-in                      acquire the big lock; clear asleep; post and run any items;
 *                                   then, if main_waiting: raise asleep; pass through the
 *                                   deque's lock; look: work is left: clear asleep, write the
 *                                   eventfd. Release the lock
 *   with WAITS, a stand-in waits, too, while it holds the lock (wait_while, block_on), until item
 *                                   WANTED has been run: until then: nothing in ready: enter
 *                                   itself among the watchers; raise asleep, pass, look; release
 *                                   the lock; park until unparked or until epoll has events (which
 *                                   it leaves there); acquire the lock, clear asleep, leave the
 *                                   watchers. Then run a batch. A thread that has run a batch
 *                                   unparks all watchers
 *
 * Variables
 *   ready     the deque. Appending and popping one item are atomic (the deque's own lock)
 *   asleep    no thread attends: raised and cleared by the holder of the big lock. As a flag
 *             (mailbox.pml) producers clear it, too; with BELL (bell.pml) it is the number of a
 *             sleep, whose token one producer gets
 *   token, held   for each sleep, with BELL: see bell.pml
 *   holder    the thread that holds the big lock (a lock that works: biglock.pml)
 *   main_waiting  the main thread is between its release and its acquire around epoll_wait. Under
 *             the big lock
 *   event     the eventfd as an edge-triggered epoll reports it (see mailbox.pml)
 *   raise_buffered  the store buffer of the big lock's holder (see mailbox.pml); passing through
 *             the deque's lock and releasing the big lock force it out
 *   watching, unparked    for each stand-in: it is among the watchers; its parker
 *   ran, done, attended   bookkeeping for the claims. attended: a thread that holds the big lock
 *             has cleared asleep, and will look at ready before it releases the lock
 *
 * Claims
 *   1. every item is run, exactly once, by a thread that holds the big lock;
 *   2. the main thread does not sleep forever while ready holds something and there is no stand-in
 *      (else: an invalid end state);
 *   3. a stand-in's posts cost no write, nor do others' posts while it stands in, nor any while the
 *      main thread is awake and has the lock: no producer sees asleep while a thread attends;
 *   4. with WAITS: the waiting stand-in does not sleep on when WANTED has been run (else: an
 *      invalid end state).
 *
 * Options: BELL, WAITS, PRODUCERS (threads without the lock), ITEMS (each), STANDINS, HOLDS (each;
 * one post in each hold).
 *
 * Broken variants
 *   BROKEN_NO_REARM            the stand-in leaves asleep cleared: later posts do not wake the
 *                              main thread
 *   BROKEN_LOOK_BEFORE_REARM   the stand-in looks at ready, then raises asleep again
 *   BROKEN_NO_WRITE            the stand-in raises asleep again and does not look: an item that came
 *                              meanwhile and was not run waits for the next post
 *   BROKEN_NO_PASS             the stand-in does not pass through the deque's lock after raising
 *                              asleep
 *   BROKEN_RUN_BEFORE_ACQUIRE  the main thread runs its batch before it has the lock again
 * with WAITS
 *   BROKEN_NOT_WATCHING        the waiting stand-in relies on epoll's events alone, which the main
 *                              thread may take
 *   BROKEN_WATCHES_LATE        it enters itself among the watchers when it has released the lock
 *   BROKEN_WAITS_WITHOUT_LOOK  it raises asleep and sleeps without a last look at ready
 *   BROKEN_GIVES_WAY_RAISED    the main thread, busy, releases the lock and takes it again, and
 *                              does not clear asleep: a stand-in that went to sleep meanwhile has
 *                              raised it. Loses nothing, but costs writes
 */

#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef ITEMS
#define ITEMS 1
#endif
#ifndef STANDINS
#define STANDINS 1
#endif
#ifndef HOLDS
#define HOLDS 2
#endif
#define POSTS (PRODUCERS * ITEMS + STANDINS * HOLDS)
#define TIMERS 1                /* wake-ups of the main thread that no producer caused */
#define YIELDS 1                /* times that a busy main thread releases the lock */
#define NOBODY 255

chan ready = [POSTS] of { byte };
byte asleep;                    /* 0 or the number of the sleep: always 1 for the flag */
bool main_waiting;
bool event;
byte holder = NOBODY;
byte raise_buffered;
#ifdef BELL
#define SLEEPS (PRODUCERS + STANDINS + 2)
bool token[SLEEPS];
byte held[SLEEPS];
#endif

bool ran[POSTS];
byte done;
bool attended;
#ifdef WAITS
#define WANTED 0
bool watching[STANDINS];
bool unparked[STANDINS];
#endif

active proctype memory()
{
end:
    do
    :: atomic { raise_buffered -> asleep = raise_buffered; raise_buffered = 0 }
    od
}

inline reach_memory()
{
    if
    :: raise_buffered -> asleep = raise_buffered; raise_buffered = 0
    :: else
    fi
}

inline pass() { d_step { reach_memory() } }
inline acquire() { atomic { holder == NOBODY -> holder = _pid } }
inline release() { d_step { assert(holder == _pid); reach_memory(); holder = NOBODY } }
inline clear_at_home() { d_step { raise_buffered = 0; asleep = 0 } }
inline write_eventfd() { event = true }

#ifndef BELL

inline raise_asleep() { raise_buffered = 1 }
inline look_at_asleep() { d_step { seen = asleep; assert(!seen || !attended) } }
inline wake_up()
{
    asleep = 0;
    write_eventfd();
    seen = 0
}

#else

inline raise_asleep()
{
    d_step {
        raise_buffered = 1;
        do
        :: held[raise_buffered] -> raise_buffered++
        :: else -> break
        od;
        token[raise_buffered] = true
    }
}

inline look_at_asleep()
{
    d_step {
        seen = asleep;
        assert(!seen || !attended);
        if
        :: seen -> held[seen]++
        :: else
        fi
    }
}

inline wake_up()
{
    d_step { won = token[seen]; token[seen] = false };
    if
    :: won -> write_eventfd()
    :: else
    fi;
    d_step { held[seen]--; won = false; seen = 0 }
}

#endif

inline post(item)
{
    ready ! item;               /* pairs with raise, pass, look: in main and in standin */
    look_at_asleep();
    if
    :: seen -> wake_up()
    :: else
    fi
}

inline run_head()
{
    atomic {
        assert(holder == _pid);
        ready ? item;
        assert(!ran[item]);
        ran[item] = true;
        done++;
        item = 0
    }
}

proctype producer(byte me)
{
    byte k;
    byte seen;
    bool won;

    for (k : 0 .. ITEMS - 1) {
        post(me * ITEMS + k)
    }
}

inline tell_watchers()
{
#ifdef WAITS
    d_step {
        for (w : 0 .. STANDINS - 1) { unparked[w] = unparked[w] || watching[w] };
        w = 0
    }
#else
    skip
#endif
}

inline run_batch()
{
    batch = len(ready);
    do
    :: batch > 0 -> run_head(); batch--
    :: else -> break
    od;
    tell_watchers()
}

inline standin_sleep()
{
#if !defined(BROKEN_NOT_WATCHING) && !defined(BROKEN_WATCHES_LATE)
    watching[me] = true;        /* before it releases the lock; pairs with tell_watchers */
#endif
    attended = false;
    raise_asleep();
    pass();                     /* the deque's lock; pairs with post */
#ifndef BROKEN_WAITS_WITHOUT_LOOK
    work = nempty(ready);
#endif
    if
    :: work -> work = false
    :: else ->
        release();
#ifdef BROKEN_WATCHES_LATE
        watching[me] = true;
#endif
        if
        :: atomic { unparked[me] -> unparked[me] = false }
        :: event
        fi;
        acquire()
    fi;
    clear_at_home();
    attended = true;
    watching[me] = false
}

proctype standin(byte me)
{
    byte k;
    byte item;
    byte batch;
    byte w;
    byte seen;
    bool won;
    bool posted;
    bool work;

    for (k : 0 .. HOLDS - 1) {
        acquire();
        clear_at_home();
        attended = true;
        do
        :: !posted ->
            post(PRODUCERS * ITEMS + me * HOLDS + k);
            posted = true
        :: atomic { nempty(ready) -> run_head() };
            tell_watchers()
        :: posted -> break
        od;
        posted = false;
#ifdef WAITS
        do
        :: ran[WANTED] -> break
        :: !ran[WANTED] ->
            if
            :: nempty(ready)
            :: empty(ready) -> standin_sleep()
            fi;
            event = false;      /* epoll_wait with timeout 0 */
            run_batch()
        od;
#endif
        if
        :: main_waiting ->
            attended = false;
#ifdef BROKEN_LOOK_BEFORE_REARM
            work = nempty(ready);
            raise_asleep();
            pass();
#else
#ifndef BROKEN_NO_REARM
            raise_asleep();
#ifndef BROKEN_NO_PASS
            pass();             /* the deque's lock; pairs with post */
#endif
#endif
            work = nempty(ready);
#endif
#ifdef BROKEN_NO_WRITE
            work = false;
#endif
            if
            :: work -> clear_at_home(); write_eventfd()
            :: else
            fi;
            work = false
        :: else -> attended = false
        fi;
        release()
    }
}

proctype main()
{
    byte batch;
    byte item;
    byte w;
    byte timers;
    byte yields;
    bool idle;

    do
    ::  run_batch();
        attended = false;
        raise_asleep();
        pass();                 /* the deque's lock; pairs with post */
        idle = empty(ready);
        if
        :: !idle ->
            clear_at_home();
            event = false;      /* epoll_wait with timeout 0 */
            if
            :: atomic { yields < YIELDS -> yields++ };
                release();
                acquire();
#ifndef BROKEN_GIVES_WAY_RAISED
                clear_at_home()
#endif
            :: skip
            fi;
            attended = true
        :: else ->
            main_waiting = true;
            release();
            if
            :: atomic { event -> event = false }
            :: atomic { timers < TIMERS -> timers++ }
            :: done == POSTS && _nr_pr == 3 -> break    /* the test is over */
            fi;
#ifdef BROKEN_RUN_BEFORE_ACQUIRE
            do
            :: atomic { nempty(ready) -> run_head() }
            :: empty(ready) -> break
            od;
#endif
            acquire();
            main_waiting = false;
            clear_at_home();
            attended = true
        fi;
        idle = false
    od
}

init
{
    byte p;

    atomic {
        holder = run main();
        attended = true;
        for (p : 0 .. PRODUCERS - 1) { run producer(p) };
        for (p : 0 .. STANDINS - 1) { run standin(p) }
    }
}
