/*
 * vCPUs: guest code, exclusive calls, kicks, pauses, work items, stops; and a vCPU's waits, in guest
 * code and in work items (docs/design/vcpu.md).
 *
 * It models src/homebound/_vcpu/gate.py, _vcpu/thread.py, _vcpu/vcpu.py and _threads/wait_until.py. What
 * they do under the guard is one step here; wakes and notifications follow in a step of their own.
 * The big lock and the loops are left out (biglock.pml, standin.pml): a waiting thread sleeps.
 *
 * The state of a vCPU's thread is a stack of what it is doing:
 *   (bottom)  _step: run work items, end, sleep, or enter through the gate and go to EXEC
 *   EXEC      `execute`: look for what was made for this vCPU. If there is some, the round is over;
 *             else halt, or compute until interrupted. In between it may do a deed
 *   WAIT      _wait_outside, for an item (DONE), for a vCPU to be out (OUT), for its turn (TURN)
 *   BACK      _go_back_in
 *   WORKS     _run_work, with that many items left
 *   CALL      _call of an item, which may do deeds too
 *   EXCL      _call_exclusively and _call_in_turn; the call may do deeds
 *   PAUSED    it has paused another vCPU, and will resume it
 * A deed is one of: make something for another vCPU and kick it; pause it, and resume it later; ask it
 * to run an item, plain or exclusive; run an exclusive call itself. Plain threads do deeds as well.
 * During an exclusive call neither the caller nor a vCPU it asks may ask for an exclusive item, which
 * would wait for itself. Two vCPUs that pause each other from guest code stay paused until the end,
 * at which all are stopped.
 *
 * Variables
 *   queue     the gate's FIFO: c is a ticket of vCPU c to run, CPUS + c one to be exclusive
 *   fresh     for each vCPU: its ticket to run is for a new round
 *   running   bit set: the vCPUs that the gate has let in
 *   owner     the vCPU whose ticket to be exclusive was granted
 *   interrupt, kicked, halted, paused, stopping, ended, work   fields of each vCPU
 *   claimed, ticketed, calls   for each vCPU: _claim is there; it has a ticket; its calls
 *   unparked  for each vCPU: its parker was unparked
 *   told      for each thread: what it watches has changed. Watched are (watched: that + 1) the end
 *             of an item, or a vCPU that leaves guest code; and a vCPU's own nudges (nudged)
 *   made      for each vCPU: there is something for it to do, for which it was or will be kicked
 *   guests    bit set: the vCPUs whose threads execute guest code now
 *   held      for each vCPU: a pause() of it has returned, and no resume() has come since
 *   items     how many items were asked for; done and quiet (may not ask for exclusive ones) of each
 *
 * Claims
 *   1. while a call is exclusive no vCPU executes guest code, and two are never exclusive (the
 *      gate's own invariants, and the assertions about guests);
 *   2. after pause() has returned nothing is executed there until resume();
 *   3. no kick is lost: what was made before it is found, unless the vCPU is paused or stopped (else
 *      init waits for it: an invalid end state);
 *   4. no deadlock: each item is run or refused, each exclusive call gets its turn, and stop ends
 *      (else: an invalid end state, or an assertion in init).
 *
 * Options: CPUS, DEEDS (of vCPUs, in all), OTHERS (plain threads), ASKS (deeds of each), STOPS (a deed of
 * plain threads is to stop a vCPU as well), NO_PAUSE, NO_KICK (and no halt), NO_ITEM, NO_EXCLUSIVE (deeds
 * that are not done), FIRST_ONLY (plain threads turn to vCPU 0 only), EACH_ITS_OWN (each to another one;
 * CPUS=3 DEEDS=0 OTHERS=2 EACH_ITS_OWN NO_KICK NO_PAUSE NO_ITEM holds as well, in three million states),
 * ITEM_DEEDS (items do deeds, guest code and exclusive calls do not), ONE_ITEM (both, and the second
 * plain thread asks for an item, all others for exclusive ones; OTHERS=3 holds as well, in six million
 * states), LATE (threads are woken in a step after the one under the guard; else at its end: a late
 * wake-up is a slow thread).
 *
 * Broken variants
 *   BROKEN_GRANTED_OVER_GUESTS  the gate grants an exclusive call while vCPUs are in guest code
 *   BROKEN_BARGING              a vCPU that wants to run enters before those in the queue, whatever
 *                               they wait for
 *   BROKEN_CLAIM_SILENT         a request to be exclusive does not interrupt the vCPUs inside
 *   BROKEN_LET_IN_FOR_GOOD      a vCPU that enters while an exclusive call waits is not interrupted:
 *                               the call was requested when there was none inside
 *   BROKEN_CLEARS_LATE          the thread clears interrupt_requested once inside, not the grant
 *   BROKEN_BACK_IS_FRESH        to go on with a round after a wait clears it too
 *   BROKEN_FRESH_IS_CLEAR       a new round begins uninterrupted although there are work items
 *   BROKEN_HALTS_ANYWAY         halt() ignores a kick that came during the round
 *   BROKEN_WAKE_FIRST           kick() wakes the vCPU before it changes its fields
 *   BROKEN_GRANT_UNTOLD         a vCPU that leaves and so lets others in does not wake them
 *   BROKEN_LEFT_UNTOLD          a vCPU that leaves guest code does not tell those that wait for that
 *   BROKEN_LOOK_BEFORE_ENTER    a waiter looks first, and registers for notification after it
 *   BROKEN_WAITS_INSIDE         a waiting vCPU stays in guest code
 *   BROKEN_WAITS_DEAF           a waiting vCPU runs no work items
 *   BROKEN_KEEPS_TURN           a wait inside another one keeps the place for being exclusive
 *   BROKEN_PASSES_TURN_ONCE     it gives up the place when it begins, not before each sleep
 *   BROKEN_PAUSED_IN_QUEUE      a vCPU that was paused while it was in the queue is let in
 *   BROKEN_ENDS_ON_OLD_LOOK     the thread looks for work items, and only then whether it is to stop
 */

#ifndef CPUS
#define CPUS 2
#endif
#ifndef DEEDS
#define DEEDS 1
#endif
#ifndef OTHERS
#define OTHERS 1
#endif
#ifndef ASKS
#define ASKS 1
#endif
#ifdef ONE_ITEM
#define FIRST_ONLY
#define ITEM_DEEDS
#define NO_KICK
#define NO_PAUSE
#define NO_ITEM
#endif
#define THREADS (CPUS + OTHERS)
#define ITEMS (DEEDS + OTHERS * ASKS)
#define DEPTH (5 + 5 * ITEMS)
#define NOBODY 255

#define EXEC 1
#define WAIT 2
#define BACK 3
#define WORKS 4
#define CALL 5
#define EXCL 6
#define PAUSED 7

#define DONE 0          /* arg of WAIT: DONE + the item, OUT + the vCPU, TURN */
#define OUT 100
#define TURN 200

chan queue = [2 * CPUS] of { byte };
bool fresh[CPUS];
byte running;
byte owner = NOBODY;

bool interrupt[CPUS];
bool kicked[CPUS];
bool halted[CPUS];
bool paused[CPUS];
bool stopping[CPUS];
bool ended[CPUS];
chan work[CPUS] = [ITEMS + 1] of { byte };
bool claimed[CPUS];
bool ticketed[CPUS];
byte calls[CPUS];

bool unparked[CPUS];
bool told[THREADS];
byte watched[THREADS];
bool nudged[CPUS];

bool made[CPUS];
byte guests;
bool held[CPUS];
byte items;
bool done[ITEMS + 1];
bool quiet[ITEMS + 1];
bool exclusive[ITEMS + 1];
byte deeds;
byte at_work;           /* plain threads */

#define bit(c) (1 << (c))
#define is_in(c) (running & bit(c))
#define must_stay_out(c) (paused[c] && !stopping[c])
#define has_ticket(c) (queue ?? [eval(c)])
#if CPUS > 2
#define is_claimed (ticketed[0] || ticketed[1] || ticketed[2])
#else
#define is_claimed (ticketed[0] || ticketed[1])
#endif

/* Under the guard: used inside a d_step. They leave in `w` the vCPUs to be woken after it. */

inline let_in(c)
{
    running = running | bit(c);
    if
    :: fresh[c] ->
        kicked[c] = false;
#ifndef BROKEN_CLEARS_LATE
        interrupt[c] = stopping[c] || len(work[c]) > 0;
#endif
#ifdef BROKEN_FRESH_IS_CLEAR
        interrupt[c] = stopping[c];
#endif
        fresh[c] = false
    :: else
    fi;
#if !defined(BROKEN_LET_IN_FOR_GOOD) && !defined(BROKEN_BARGING)
    interrupt[c] = interrupt[c] || is_claimed
#endif
}

inline serve()
{
    do
    :: len(queue) > 0 && owner == NOBODY ->
        queue ? <t>;
        if
#ifdef BROKEN_GRANTED_OVER_GUESTS
        :: t >= CPUS -> owner = t - CPUS; w = w | bit(owner)
#else
        :: t >= CPUS && running -> break
        :: t >= CPUS && !running -> owner = t - CPUS; w = w | bit(owner)
#endif
#ifdef BROKEN_PAUSED_IN_QUEUE
        :: t < CPUS -> let_in(t); w = w | bit(t)
#else
        :: t < CPUS && must_stay_out(t) -> fresh[t] = false
        :: t < CPUS && !must_stay_out(t) -> let_in(t); w = w | bit(t)
#endif
        fi;
        queue ? t
    :: else -> break
    od;
    assert(owner == NOBODY || !running);                        /* claim 1 */
    for (t : 0 .. CPUS - 1) {
        assert(!is_in(t) || !paused[t] || interrupt[t]);
        assert(!is_in(t) || !held[t] || stopping[t])            /* claim 2 */
    };
    t = 0
}

inline claim_turn(c)
{
    queue ! CPUS + c;
    ticketed[c] = true;
    serve();
#ifndef BROKEN_CLAIM_SILENT
    for (t : 0 .. CPUS - 1) { interrupt[t] = interrupt[t] || is_in(t) };
    t = 0
#endif
}

inline give_up(c)
{
    if
    :: ticketed[c] && owner == c -> owner = NOBODY
    :: ticketed[c] && owner != c -> queue ?? eval(CPUS + c)
    :: else
    fi;
    ticketed[c] = false;
    serve()
}

/* After it: one step each. */

inline wake(c)          /* inside a d_step */
{
    unparked[c] = true;
    told[c] = told[c] || nudged[c]
}

inline wake_these()     /* inside a d_step */
{
    for (t : 0 .. CPUS - 1) {
        if
        :: w & bit(t) -> wake(t)
        :: else
        fi
    };
    t = 0;
    w = 0
}

inline wake_soon()      /* at the end of a d_step under the guard */
{
#ifndef LATE
    wake_these()
#else
    skip
#endif
}

inline wake_late()      /* after it */
{
#ifdef LATE
    if
    :: w -> d_step { wake_these() }
    :: else
    fi
#else
    skip
#endif
}

inline tell_them(what)          /* inside a d_step */
{
    for (t : 0 .. THREADS - 1) { told[t] = told[t] || watched[t] == (what) + 1 };
    t = 0
}

inline take_out(c)         /* `b`: it was inside */
{
    d_step {
        b = is_in(c) != 0;
        guests = guests & ~bit(c);
        running = running & ~bit(c);
        if
        :: has_ticket(c) -> queue ?? eval(c); fresh[c] = false
        :: else
        fi;
        serve();
#ifdef BROKEN_GRANT_UNTOLD
        w = 0;
#endif
        wake_soon()
    };
    wake_late();
#ifndef BROKEN_LEFT_UNTOLD
    if
    :: b -> d_step { tell_them(OUT + c) }
    :: else
    fi
#endif
}

inline admit(c, new)    /* `b`: it is inside */
{
    d_step {
        if
        :: is_in(c) || must_stay_out(c) -> skip
        :: else ->
            if
#ifdef BROKEN_BARGING
            :: !has_ticket(c) && owner == NOBODY -> fresh[c] = new; let_in(c)
            :: !has_ticket(c) && owner != NOBODY -> queue ! c; fresh[c] = new
#else
            :: !has_ticket(c) -> queue ! c; fresh[c] = new
#endif
            :: else
            fi;
            serve()
        fi;
        b = is_in(c) != 0;
        wake_soon();
        if
        :: b -> guests = guests | bit(c); assert(is_in(c) && owner == NOBODY)
        :: else
        fi
    };
    wake_late();
#ifdef BROKEN_CLEARS_LATE
    if
    :: b && new -> interrupt[c] = stopping[c] || len(work[c]) > 0
    :: else
    fi
#endif
}

/* Deeds. */

inline kick(c)
{
    made[c] = true;
#ifdef BROKEN_WAKE_FIRST
    d_step { wake(c) };
#endif
    d_step {
        kicked[c] = true;
        interrupt[c] = true;
        halted[c] = false;
#ifndef BROKEN_WAKE_FIRST
        w = bit(c);
        wake_soon()
#endif
    };
    wake_late()
}

inline begin_pause(c)
{
    d_step {
        paused[c] = true;
        interrupt[c] = true;
        w = bit(c);
        wake_soon()
    };
    wake_late()
}

inline resume(c)
{
    d_step { paused[c] = false; held[c] = false; w = bit(c); wake_soon() };
    wake_late();
    d_step { tell_them(OUT + c) }
}

/* `b`: it was accepted, as item number `n` */
inline submit(c, alone, silent)
{
    d_step {
        b = !stopping[c];
        if
        :: b ->
            n = items;
            items++;
            exclusive[n] = alone;
            quiet[n] = silent;
            work[c] ! n;
            interrupt[c] = true;
            w = bit(c)
        :: else -> n = NOBODY
        fi;
        wake_soon()
    };
    wake_late()
}

inline ask_to_stop(c)
{
    d_step { stopping[c] = true; interrupt[c] = true; w = bit(c); wake_soon() };
    wake_late()
}

#define is_done(what) ( \
    (what) == TURN -> (!ticketed[me] || owner == me) : \
    ((what) >= OUT -> (!paused[(what) - OUT] || !is_in((what) - OUT)) : done[what]))

#define worth_asking (is_in(me) || (!has_ticket(me) && !must_stay_out(me)))

/* What pause() has promised when it returns. Inside a d_step */
inline promised(what)
{
    if
    :: (what) >= OUT && (what) < TURN && paused[(what) - OUT] && !stopping[(what) - OUT] ->
        held[(what) - OUT] = true
    :: else
    fi
}

inline watch(what)
{
    d_step {
        told[me] = false;
        watched[me] = (what) + 1;
        if
        :: me < CPUS -> nudged[me] = true
        :: else
        fi
    }
}

inline unwatch_here()           /* inside a d_step */
{
    watched[me] = 0;
    told[me] = false;
    if
    :: me < CPUS -> nudged[me] = false
    :: else
    fi
}

inline unwatch() { atomic { unwatch_here() } }

/* A plain thread. */

proctype other(byte me)
{
    byte asked;
    byte t;
    byte w;
    byte n;
    byte c;
    bool b;

    do
    :: asked < ASKS ->
        atomic {
#ifdef EACH_ITS_OWN
            c = me - CPUS;
#elif !defined(FIRST_ONLY)
            if
            :: asked || me > CPUS -> select(c : 0 .. CPUS - 1)
            :: else -> c = 0            /* the first of all: they are alike */
            fi;
#endif
            asked++
        };
        n = NOBODY;
        if
#ifndef NO_KICK
        :: kick(c)
#endif
#ifndef NO_PAUSE
        :: begin_pause(c); n = OUT + c
#endif
#ifdef ONE_ITEM
        :: me == CPUS + 1 -> submit(c, false, false)
        :: me != CPUS + 1 -> submit(c, true, false)
#endif
#ifndef NO_ITEM
        :: submit(c, false, false)
#endif
#if !defined(NO_EXCLUSIVE) && !defined(ONE_ITEM)
        :: submit(c, true, false)
#endif
#ifdef STOPS
        :: ask_to_stop(c)
#endif
        fi;
        if
        :: n == NOBODY -> goto next
        :: else
        fi;
#ifdef BROKEN_LOOK_BEFORE_ENTER
        if
        :: is_done(n) -> goto over
        :: else
        fi;
        watch(n);
        atomic { told[me] -> told[me] = false };
#else
        watch(n);
#endif
        do
        :: atomic {
                if
                :: is_done(n) -> promised(n); break
                :: else
                fi
            };
            atomic { told[me] -> told[me] = false }
        od;
#ifdef BROKEN_LOOK_BEFORE_ENTER
over:
#endif
        unwatch();
        if
        :: n >= OUT -> resume(c)
        :: else
        fi;
next:
        atomic { n = 0; c = 0; b = false }
    :: else -> break
    od;
    at_work--
}

/* A vCPU's thread. */

inline push(what, with)         /* inside a d_step */
{
    sp++;
    assert(sp < DEPTH);
    kind[sp] = what;
    arg[sp] = with
}

inline pop() { kind[sp] = 0; arg[sp] = 0; pc[sp] = 0; was[sp] = false; sp-- }   /* the same */

inline leave_round() { take_out(me); d_step { pop(); b = false } }

/* inside a d_step */
inline over_or_back()
{
    if
    :: was[sp] -> kind[sp] = BACK; arg[sp] = 0; pc[sp] = 0; was[sp] = false
    :: else -> pop()
    fi
}

inline pass_turn()
{
    if
#ifndef BROKEN_KEEPS_TURN
    :: claimed[me] && ticketed[me] && !calls[me] && (kind[sp] != WAIT || arg[sp] != TURN) ->
        d_step { give_up(me); wake_soon() };
        wake_late()
#endif
    :: else
    fi
}

inline deed()
{
    atomic {
        deeds++;
        if
        :: c = (me + 1) % CPUS
#if CPUS > 2
        :: c = (me + CPUS - 1) % CPUS
#endif
        fi
    };
    if
#ifndef NO_KICK
    :: kick(c)
#endif
#ifndef NO_PAUSE
    :: begin_pause(c); d_step { push(PAUSED, c); push(WAIT, OUT + c) }
#endif
#ifndef NO_ITEM
    :: submit(c, false, calls[me] || quiets);
        d_step {
            if
            :: b -> push(WAIT, n)
            :: else
            fi
        }
#endif
#ifndef NO_EXCLUSIVE
    :: !calls[me] && !quiets ->
        submit(c, true, false);
        d_step {
            if
            :: b -> push(WAIT, n)
            :: else
            fi
        }
    :: calls[me] || !quiets -> d_step { push(EXCL, 0) }
#endif
    fi;
    d_step { b = false; n = 0; c = 0 }
}

inline sleep() { atomic { unparked[me] -> unparked[me] = false } }

#ifdef LATE
#define ONE
#else
#define ONE atomic         /* one region under the guard, and what is the thread's own */
#endif
#define can_deed (deeds < DEEDS)
#define top kind[sp]
#define at pc[sp]

proctype vcpu(byte me)
{
    byte kind[DEPTH];
    byte arg[DEPTH];
    byte pc[DEPTH];
    bool was[DEPTH];            /* it was inside, and goes back in */
    byte sp;
    byte quiets;                /* the quiet items that are being called */
    byte t;
    byte w;
    byte n;
    byte c;
    bool b;

    do
    :: top == 0 ->
#ifdef BROKEN_ENDS_ON_OLD_LOOK
        n = (len(work[me]) > 0 -> 1 : 0);
        d_step { n = (n -> n : (stopping[me] -> 2 : (paused[me] || halted[me] -> 3 : 0))) };
#else
        d_step {
            n = (len(work[me]) > 0 -> 1 : (stopping[me] -> 2 : (paused[me] || halted[me] -> 3 : 0)))
        };
#endif
        if
        :: n == 0 -> ONE {
                admit(me, true);
                if
                :: b -> d_step { push(EXEC, 0); b = false }
                :: else -> sleep()
                fi
            }
        :: n == 1 -> ONE { take_out(me); d_step { push(WORKS, len(work[me])); n = 0; b = false } }
        :: n == 2 -> take_out(me); break
        :: n == 3 -> ONE { take_out(me); d_step { n = 0; b = false }; sleep() }
        fi

    :: atomic { top == EXEC && at == 0 ->
        if
        :: made[me] -> made[me] = false; at = 1
        :: !made[me] -> at = 2          /* it computes */
#ifndef NO_KICK
        :: !made[me] -> at = 3          /* it will halt */
#endif
        fi }
    :: ONE { top == EXEC && at == 1 -> leave_round() }
    :: ONE { top == EXEC && at == 2 && interrupt[me] -> leave_round() }
#ifndef NO_KICK
    :: top == EXEC && at == 3 ->
#ifndef BROKEN_HALTS_ANYWAY
        d_step { halted[me] = halted[me] || !kicked[me] };
#else
        halted[me] = true;
#endif
        leave_round()
#endif
#ifndef ITEM_DEEDS
    :: top == EXEC && at == 2 && can_deed -> deed()
#endif

    :: top == WAIT && at == 0 -> ONE {
#ifndef BROKEN_WAITS_INSIDE
            take_out(me);
#endif
            d_step { was[sp] = b; b = false; at = 1 }
        };
#ifdef BROKEN_PASSES_TURN_ONCE
        pass_turn()
#endif
    :: atomic { top == WAIT && at == 1 && is_done(arg[sp]) -> promised(arg[sp]); over_or_back() }
    :: top == WAIT && at == 1 && !is_done(arg[sp]) ->
#ifndef BROKEN_PASSES_TURN_ONCE
        pass_turn();
#endif
        watch(arg[sp]);
        at = 2
    :: atomic { top == WAIT && at == 2 && is_done(arg[sp]) -> at = 1; unwatch_here() }
    :: atomic {
            top == WAIT && at == 2 && !is_done(arg[sp]) ->
            if
#ifndef BROKEN_WAITS_DEAF
            :: len(work[me]) > 0 -> at = 1; unwatch_here(); push(WORKS, len(work[me]))
#endif
            :: else -> at = 3
            fi
        }
    :: atomic { top == WAIT && at == 3 && told[me] -> told[me] = false; at = 2 }

    :: ONE { top == BACK && at == 0 ->
#ifdef BROKEN_BACK_IS_FRESH
            admit(me, true);
#else
            admit(me, false);
#endif
            if
            :: b -> d_step { pop(); b = false }
            :: else -> at = 1
            fi
        }
    :: top == BACK && at == 1 -> pass_turn(); watch(TURN); at = 2
    :: atomic {
            top == BACK && at == 2 ->
            if
            :: len(work[me]) > 0 -> at = 0; unwatch_here(); push(WORKS, len(work[me]))
            :: !len(work[me]) && worth_asking -> at = 0; unwatch_here()
            :: else -> at = 3
            fi
        }
    :: atomic { top == BACK && at == 3 && told[me] -> told[me] = false; at = 2 }

    :: ONE { top == WORKS ->
        d_step {
            if
            :: arg[sp] && len(work[me]) > 0 -> arg[sp]--; work[me] ? n; push(CALL, n); n = 0
            :: else -> pop()
            fi
        } }

    :: ONE { top == CALL && at == 0 ->
        d_step {
            at = 1;
            if
            :: exclusive[arg[sp]] -> at = 2; push(EXCL, 0)
            :: !exclusive[arg[sp]] && quiet[arg[sp]] -> quiets++
            :: else
            fi
        } }
    :: top == CALL && at == 1 && can_deed -> deed()
    :: ONE { top == CALL && at == 1 -> at = 2 }
    :: ONE { top == CALL && at == 2 ->
        d_step {
            n = arg[sp];
            quiets = quiets - (!exclusive[n] && quiet[n]);
            done[n] = true;
            pop()
        };
        d_step { tell_them(n) };
        n = 0 }

    :: ONE { top == EXCL && at == 0 && claimed[me] -> at = 1 }
    :: ONE { top == EXCL && at == 0 && !claimed[me] ->
        take_out(me);
        d_step { was[sp] = b; b = false; arg[sp] = 1; claimed[me] = true; at = 1 } }
    :: atomic { top == EXCL && at == 1 && ticketed[me] && owner == me -> calls[me]++; at = 2 }
    :: ONE { top == EXCL && at == 1 && !ticketed[me] ->
        d_step { claim_turn(me); wake_soon() };
        wake_late();
        d_step { push(WAIT, TURN) } }
    :: ONE { top == EXCL && at == 1 && ticketed[me] && owner != me -> d_step { push(WAIT, TURN) } }
#ifndef ITEM_DEEDS
    :: top == EXCL && at == 2 && can_deed -> assert(!guests); deed()        /* claim 1 */
#endif
    :: ONE { top == EXCL && at == 2 -> d_step { assert(!guests); calls[me]--; at = 3 } }
    :: ONE { top == EXCL && at == 3 && arg[sp] ->
        d_step { claimed[me] = false; give_up(me); wake_soon() };
        wake_late();
        d_step { over_or_back() } }
    :: ONE { top == EXCL && at == 3 && !arg[sp] -> d_step { pop() } }

    :: ONE { top == PAUSED ->
        d_step { c = arg[sp]; pop() };
        resume(c);
        c = 0 }
    od;
    atomic { ended[me] = true; assert(!sp && len(work[me]) == 0); n = 0; b = false };
    d_step { tell_them(OUT + me) }
}

init
{
    byte t;
    byte w;
    byte n;

    atomic {
        at_work = OTHERS;
        for (t : 0 .. CPUS - 1) { run vcpu(t) };
        for (t : CPUS .. THREADS - 1) { run other(t) };
        t = 0
    };
    !at_work;
    for (t : 0 .. CPUS - 1) { !made[t] || paused[t] || stopping[t] };     /* claim 3 */
    for (n : 0 .. CPUS - 1) { ask_to_stop(n) };
    _nr_pr == 1;
    assert(len(queue) == 0 && owner == NOBODY && !running);
    for (t : 0 .. CPUS - 1) { assert(ended[t]) };
    for (t : 0 .. ITEMS - 1) { assert(done[t] || t >= items) }
}
