/*
 * The hand-off of one guest from node a to node b, as services/ram-sender, services/loader and services/coordinator do it.
 * README.md beside this file says what is modelled, which code upholds each assumption, and what was found.
 *
 *   bus        What was said once may be heard at any later time, once, often or never. So a message is no object that travels: it is
 *              a bit that is set when it is sent and never cleared, and hearing it is a choice.
 *   workers    Remember nothing and may run an item at any time after it was handed out, on the memory of that moment. So they need
 *              no process: the packets of an item are all contents that its page has had since (`sent`).
 *   record     Changes only by compare-and-set. A revision is nothing but "nobody has written since": one bit for each request that is
 *              under way (`s_live`, `l_live`), cleared by every write that lands. Who waits for an answer repeats the request, so a lost
 *              answer is the same as a late one; only requests whose author has died or given up need a place of their own (`orphan`).
 *   epoch      Number of the attempt, and whether the guest was only taken back under it: each attempt is claimed under a new number, what
 *              a recovery or a coordinator writes (epoch + 1) never has packets of its own.
 *
 *   spin -a handoff.pml && gcc -O2 -DSAFETY -DVECTORSZ=512 -o pan pan.c && ./pan -m100000     (-DNO_ROUND_FENCE: without that)
 */
#ifndef ATTEMPTS
#define ATTEMPTS 2 /* at most */
#endif
#ifndef ROUNDS
#define ROUNDS 3 /* of one attempt, the last one included; 3 at most */
#endif
#ifndef WRITES
#define WRITES 2 /* of the running guest, in all; 2 at most */
#endif
#ifndef SENDER_DEATHS
#define SENDER_DEATHS 1
#endif
#ifndef LOADER_DEATHS
#define LOADER_DEATHS 1 /* 2 at most; the successor resumes the session, or has lost it */
#endif
#ifndef FENCINGS
#define FENCINGS 1 /* coordinators that give the source up for lost, rightly or not */
#endif
#ifndef STALE_READS
#define STALE_READS 1
#endif

#ifdef NO_EPOCH_CHECK
#define UNCUT /* packets of an attempt that is over can do harm: they are kept */
#endif

#define PAGES 3  /* items 0 and 1: a page each */
#define SLICES 12 /* items 2 and 3, of the last round: two slices of the device state */
#define RUBBISH 3 /* what a page holds that nothing was written to */

/* ---- the ownership record, packed into one number ---- */
#define SOURCE 1
#define SWITCHING 2
#define DESTINATION 3
#define STATE(x) ((x) & 3)
#define ATTEMPT(x) (((x) >> 2) & 3)
#define TAKEN 16    /* the epoch is of a recovery or of a coordinator */
#define OPEN 32
#define FENCED 64   /* its operation id has the coordinator's prefix */
#define INCARNATION(x) (((x) >> 7) & 3)
#define ROUND(x) (((x) >> 9) & 3)
#define MANIFEST(x) (((x) >> 11) & 3)
#define AT_SOURCE(attempt, flags) (SOURCE | ((attempt) << 2) | (flags))
#define HAND_OVER(attempt, inc, round, pages) (SWITCHING | ((attempt) << 2) | OPEN | ((inc) << 7) | ((round) << 9) | ((pages) << 11))
#define AT_DESTINATION(attempt, inc) (DESTINATION | ((attempt) << 2) | OPEN | ((inc) << 7))

short record = AT_SOURCE(0, 0);
short orphan[2]; /* requests without an author, which land late or never; 0: none */

/* ---- faults so far ---- */
byte writes, sender_deaths, loader_deaths, fencings, stale_reads;
byte died; /* incarnations of the loader, 1 bit each, whose host died with the guest's copy */
#ifdef REACH
byte seen;
#define SAW(what) seen = seen | (what)
#define A_RESUMED_SESSION 1
#define A_LATE_LANDING 2
#define A_SENDER_DEATH 4
#define A_FENCING 8
#else
#define SAW(what) skip
#endif

/* ---- the guest's two copies ---- */
bool s_runs = 1, d_runs, d_started;
byte s_page[2], d_page[2] = RUBBISH;
byte dirty;
byte d_slice[2];  /* the file in which the device state gathers: slice 1 or 2 of an attempt, 0: nothing */
byte d_loaded;    /* attempt whose device state the copy at b has loaded; 0: it waits */

/* ---- the bus ---- */
#define ITEM(r, p) (1 << (((r) - 1) * 2 + (p)))
#define PACKET(r, p, v) (1 << ((((r) - 1) * 2 + (p)) * 3 + (v)))
byte claimed;               /* newest attempt that was ever claimed: Prepare was said for it */
byte ready;                 /* for the newest attempt: incarnations of the loader that are ready, 1 bit each */
byte asked[3];   /* items with a page that workers may run */
int sent[3];     /* packets that may arrive: of each item, each content since it was handed out */
byte sliced[3];  /* last round of the attempt, once its slices were handed out; 0: not yet */
byte acks;                  /* acknowledgements of the sender's round, by the incarnation it was told */

/* ---- sender ---- */
mtype = { idle, claiming, waiting, precopy, stopped, switching, awaiting, taking_back, releasing, recovering, recovery, done, fenced_off };
mtype s = idle;
byte s_attempt, s_round, s_inc, s_items;
bool s_taken;  /* it goes on under the epoch of a coordinator that fenced it off */
bool s_live, s_landed; /* its request can still land; has landed */
bool s_current;        /* nobody wrote since the last write that it knows to have won */

/* ---- loader ---- */
mtype = { none, receiving, committing, running };
mtype l = none;
byte l_inc, l_attempt, l_round, l_items; /* the last two: newest round and what of it is applied, in the fence's file as in memory */
byte l_unnoted; /* pages of a batch in which the loader will die: applied, and not noted in the file */
byte l_failed;  /* attempt whose session ended without the process */
bool l_live, l_landed;
#ifdef TWO_LOADERS
byte l_zombie;  /* oldest round that a predecessor which only sleeps would still apply; 0: it is dead */
#endif

/* Not part of the state: what is checked, and what is used within a step. */
hidden short wanted;
hidden byte one_guest_at_most, memory_is_equal, loaded_memory_is_left_alone, device_state_is_whole, there_is_a_way_out;

/* ---- writes of the record ---- */
inline end_session() {
  l = none; l_attempt = 0; l_round = 0; l_items = 0; d_slice[0] = 0; d_slice[1] = 0; d_page[0] = RUBBISH; d_page[1] = RUBBISH
}
inline bury(attempt) { /* its epoch was passed by, it cannot be handed over any more: what is left of it is forgotten, to save states */
#ifndef UNCUT
  asked[attempt] = 0; sent[attempt] = 0; sliced[attempt] = 0; acks = 0; ready = 0;
  if :: l == receiving && l_attempt <= (attempt) -> end_session() :: else fi
#else
  skip
#endif
}
inline land(what) {
  record = what;
  s_live = 0; l_live = 0; s_current = 0; orphan[0] = 0; orphan[1] = 0;
  if :: STATE(record) == SOURCE && claimed > 0 -> bury(claimed) :: else fi;
  if :: ATTEMPT(record) > claimed -> claimed = ATTEMPT(record); ready = 0 :: else fi
}
inline let_go(what) { /* a request whose author will not hear the answer */
  if
  :: orphan[0] == 0 -> orphan[0] = what
  :: orphan[0] != 0 && orphan[1] == 0 -> orphan[1] = what
  :: true /* it was lost as well */
  fi
}

proctype Record() {
  short late;
end:
  do
  :: atomic { orphan[0] != 0 ->
      if :: late = orphan[0] :: orphan[1] != 0 -> late = orphan[1] fi;
      land(late); late = 0; SAW(A_LATE_LANDING) }
  :: atomic { orphan[0] != 0 -> orphan[0] = orphan[1]; orphan[1] = 0 }
  od
}

/* ---- the guest at the source: a write and its dirty bit are one step ---- */
#define LATE(a, r, p) if :: asked[a] & ITEM(r, p) -> sent[a] = sent[a] | PACKET(r, p, s_page[p]) :: else fi;
#define LATE_WORKERS(p) LATE(1, 1, p) LATE(1, 2, p) LATE(1, 3, p) LATE(2, 1, p) LATE(2, 2, p) LATE(2, 3, p)
#ifdef UNCUT
#define WRITE_MATTERS true
#else
#define WRITE_MATTERS (s == precopy) /* the first sync of an attempt names every page, whatever was written before */
#endif
proctype Guest() {
end:
  do
  :: atomic { s_runs && writes < WRITES && WRITE_MATTERS -> writes++; s_page[0]++; dirty = dirty | 1; LATE_WORKERS(0) }
  :: atomic { s_runs && writes < WRITES && WRITE_MATTERS -> writes++; s_page[1]++; dirty = dirty | 2; LATE_WORKERS(1) }
  od
}

/* ---- the RAM sender ---- */
inline run_at_source() {
  one_guest_at_most = !d_started; assert(one_guest_at_most);
  s_runs = 1
}
#ifdef CLEAR_AFTER_READ
bool uncleared;
#define CLEAR uncleared = 1
#else
#define CLEAR dirty = 0
#endif
inline hand_out(pages) {
  asked[s_attempt] = asked[s_attempt] | ((pages) << ((s_round - 1) * 2));
  if :: (pages) & 1 -> sent[s_attempt] = sent[s_attempt] | PACKET(s_round, 0, s_page[0]) :: else fi;
  if :: (pages) & 2 -> sent[s_attempt] = sent[s_attempt] | PACKET(s_round, 1, s_page[1]) :: else fi
}
inline sync(owed) {
  s_items = dirty | (owed); CLEAR; s_round++; acks = 0;
  hand_out(s_items)
}
inline begin(incarnation) {
  s_inc = incarnation; s_round = 0; dirty = PAGES; s_items = 0; sync(0); s = precopy
}
inline request(phase) { s_live = s_current; s_landed = 0; s = phase }
inline end_attempt() {
  s_attempt = 0; s_round = 0; s_inc = 0; s_items = 0; s_taken = 0; s_live = 0; s_landed = 0; s_current = 0;
  acks = 0; dirty = 0
}
/* What the request under way shall make of the record. */
#define WANTED (s == claiming -> AT_SOURCE(ATTEMPT(record) + 1, OPEN) : \
  (s == switching -> HAND_OVER(s_attempt, s_inc, s_round, s_items) : \
  (s == recovery -> AT_SOURCE(ATTEMPT(record), OPEN | TAKEN) : \
  AT_SOURCE(s_attempt, (s == taking_back -> OPEN : 0) | (s_taken -> TAKEN : 0)))))
inline give_up_request() { if :: s_live -> wanted = WANTED; let_go(wanted) :: else fi }
/* Answered, or read: it has landed. A write on top of it may hide that from a reader, so an unanswered author may also believe the opposite. */
#define WON (s_landed)
#define LOST (!s_live && (!s_landed || !s_current))

#ifdef TWO_SENDERS
bool s_sleeps; /* a predecessor that was taken for dead holds the guest stopped */
#define SLEEP s_sleeps = (s == stopped);
#else
#define SLEEP
#endif
#ifdef NO_GOING_ON
#define GOES_ON false
#else
#define GOES_ON (record & FENCED)
#endif

proctype Sender() {
end:
  do
  /* claim: sender.ts route, source.ts claim */
  :: atomic { s == idle && STATE(record) == SOURCE && ATTEMPT(record) < ATTEMPTS ->
      s = claiming; s_landed = 0;
      if
      :: s_live = 1
      :: stale_reads < STALE_READS -> stale_reads++; s_live = 0 /* it names a revision that has passed */
      fi }
  :: atomic { s_live -> wanted = WANTED; land(wanted); s_landed = 1; s_current = 1; s_attempt = (s == claiming -> claimed : s_attempt) }
  :: atomic { s == claiming && WON -> s = waiting }
  :: atomic { s == claiming && LOST -> end_attempt(); s = idle }
  :: atomic { s == claiming -> give_up_request(); end_attempt(); s = idle } /* ending.ts fail */
  /* rounds: source.ts Start, precopy.ts */
  :: atomic { s == waiting && (ready & 1) && s_attempt == claimed -> begin(0) }
  :: atomic { s == waiting && (ready & 2) && s_attempt == claimed -> begin(1) }
  :: atomic { s == waiting && (ready & 4) && s_attempt == claimed -> begin(2) }
  :: atomic { s == precopy && s_round + 1 < ROUNDS && (s_items & ~acks) == 0 -> sync(0) }
  :: atomic { s == precopy -> s_runs = 0; s = stopped }
#ifdef CLEAR_AFTER_READ
  :: atomic { uncleared -> uncleared = 0; dirty = 0 }
#endif
  :: atomic { (s == waiting || s == precopy) -> request(releasing) }
  /* the switchover: switchover.ts. Of the acknowledgements under way any may have come. */
  :: atomic { s == stopped ->
      if
      :: sync(s_items & ~acks)
      :: (acks & 1) -> sync(s_items & ~(acks & 2))
      :: (acks & 2) -> sync(s_items & ~(acks & 1))
      :: (acks == PAGES) -> sync(s_items)
      fi;
      sliced[s_attempt] = s_round; request(switching) }
  :: atomic { s == stopped -> run_at_source(); request(releasing) }
  :: atomic { s == switching && WON -> s = awaiting }
#ifdef GUESS_LOST_REPLY
  :: atomic { s == switching && s_live -> give_up_request(); end_attempt(); run_at_source(); s = idle }
#endif
  :: atomic { s == awaiting && STATE(record) == DESTINATION -> end_attempt(); s = done } /* switchover.ts confirmed */
#if defined(RESUME_WITHOUT_WRITE)
  :: atomic { s == awaiting -> end_attempt(); run_at_source(); s = idle }
#elif !defined(NO_TAKE_BACK)
  :: atomic { s == awaiting -> request(taking_back) } /* deadline, abort, loader's failure: ending.ts fail */
#endif
  :: atomic { s == taking_back && WON -> run_at_source(); request(releasing) }
  :: atomic { (s == switching || s == taking_back) && LOST -> /* source.ts lost */
      if
      :: STATE(record) == DESTINATION -> end_attempt(); s = done
      :: STATE(record) != DESTINATION && GOES_ON -> s_taken = 1; s_current = 1; request(taking_back) /* source.ts goOn */
      :: STATE(record) != DESTINATION && !GOES_ON -> end_attempt(); s = fenced_off
      fi }
  :: atomic { s == releasing && (WON || LOST) -> end_attempt(); s = idle }
  /* death and recovery: recovery.ts recover, recovery-run.ts recoverGuest. The guest stays as it was. */
  :: atomic { sender_deaths < SENDER_DEATHS && s != done && s != fenced_off && (s != idle || claimed > 0) ->
      sender_deaths++; SAW(A_SENDER_DEATH);
      give_up_request();
      SLEEP end_attempt(); s = recovering }
  :: atomic { s == recovering && STATE(record) == DESTINATION -> s = done }
  :: atomic { s == recovering && STATE(record) == SOURCE && !(record & OPEN) && s_runs -> s = idle }
  :: atomic { s == recovering && STATE(record) != DESTINATION && (record & OPEN) -> s = recovery; s_live = 1; s_landed = 0 }
  :: atomic { s == recovering && stale_reads < STALE_READS -> stale_reads++;
      if
      :: s = recovery; s_live = 0; s_landed = 0
      :: s_runs -> s = idle /* an old record was closed: nothing to do */
      fi }
#ifdef TWO_SENDERS
  :: atomic { s_sleeps -> s_sleeps = 0; run_at_source() } /* ending.ts resume: what it waited for has failed */
#endif
#ifdef TRUST_STALE_READ
  :: atomic { s == recovering && !s_runs -> run_at_source(); s = idle }
#endif
  :: atomic { s == recovery && WON ->
      if :: !s_runs -> run_at_source() :: else fi;
      if :: s_current -> let_go(AT_SOURCE(ATTEMPT(record), TAKEN)) :: else fi; /* closed: said once, not settled */
      end_attempt(); s = idle }
  :: atomic { s == recovery && LOST -> end_attempt(); s = recovering }
  od
}

/* ---- the coordinator: reckoning.ts fence. Its other words (abort, cancel) are choices of those who obey them. ---- */
proctype Coordinator() {
end:
  do
  :: atomic { fencings < FENCINGS && ATTEMPT(record) > 0 && STATE(record) != DESTINATION && s != done ->
      fencings++; let_go(AT_SOURCE(ATTEMPT(record), OPEN | TAKEN | FENCED)); SAW(A_FENCING) }
  od
}

/* ---- the destination loader ---- */
#ifdef NO_ROUND_FENCE
#define ROUND_OK(r) true
#else
#define ROUND_OK(r) ((r) >= l_round)
#endif
#ifdef NO_INCARNATION_CHECK
#define FOR_ME true
#else
#define FOR_ME (INCARNATION(record) == l_inc)
#endif
/* An acknowledgement of another round or incarnation is never looked at (source.ts Applied), so only this one is worth a bit. */
#define HEARD_BY_SENDER(r) (s == precopy && l_attempt == s_attempt && (r) == s_round && l_inc == s_inc)
#define HAS(r, item) (l_round == (r) && (l_items & (item)))
inline acknowledge(r, item) { if :: HEARD_BY_SENDER(r) -> acks = acks | (item) :: else fi }
inline note(r, item) {
  if :: (r) > l_round -> l_round = r; l_items = 0 :: else fi;
  l_items = l_items | (item)
}
inline resume_session() { /* the successor has the file's fence and incarnation, and the memory */
  loader_deaths++; SAW(A_RESUMED_SESSION);
#ifdef FORGET_FENCE
  if :: l == receiving -> l_round = 0; l_items = 0 :: else fi;
#endif
#ifdef EMPTY_DEVICE_FILE
  d_slice[0] = 0; d_slice[1] = 0;
#endif
#ifdef TORN_FENCE_FILE
  if :: l_round > 0 && l_round < s_round -> l_round++ :: true fi; /* the new round beside the old one's items */
#endif
#ifdef TWO_LOADERS
  l_zombie = (l_round == 0 -> 1 : l_round);
#endif
  l_unnoted = 0;
  l = receiving
}
#define MAY_DIE (loader_deaths < LOADER_DEATHS && !d_started)

/*
 * A packet of a page: applied, noted in the fence's file, acknowledged; a copy of what was applied in this round is only acknowledged.
 * Or the loader dies in the middle of a batch, whose pages are applied and not noted. Dying after that is as good as losing the acknowledgement.
 */
#ifdef NO_EPOCH_CHECK
#define ARRIVED(r, p, v) ((sent[l_attempt] & PACKET(r, p, v)) || (sent[1] & PACKET(r, p, v)))
#else
#define ARRIVED(r, p, v) (sent[l_attempt] & PACKET(r, p, v))
#endif
#ifdef APPLY_COPIES
#define NOT_APPLIED(r, p) true
#else
#define NOT_APPLIED(r, p) !HAS(r, 1 << (p))
#endif
#define MAY_TAKE(r, p, v) (l == receiving && ARRIVED(r, p, v) && ROUND_OK(r) && NOT_APPLIED(r, p))
inline apply(p, v) {
  loaded_memory_is_left_alone = (d_loaded < l_attempt); assert(loaded_memory_is_left_alone);
  d_page[p] = v
}
inline take(r, p, v) {
  if
  :: apply(p, v); note(r, 1 << (p)); acknowledge(r, 1 << (p))
#ifdef ACKNOWLEDGE_EARLY
  :: HEARD_BY_SENDER(r) && !(acks & (1 << (p))) -> acknowledge(r, 1 << (p))
#endif
#ifdef NOTE_BEFORE_APPLY
  :: MAY_DIE -> note(r, 1 << (p)); resume_session()
#endif
  fi
}
#define PAGE_PACKET(r, p, v) \
  :: atomic { MAY_TAKE(r, p, v) && l_unnoted == 0 -> take(r, p, v) } \
  :: atomic { MAY_TAKE(r, p, v) && MAY_DIE && !(l_unnoted & (1 << (p))) -> apply(p, v); l_unnoted = l_unnoted | (1 << (p)) } \
  ZOMBIE(r, p, v)
#ifdef TWO_LOADERS
#define ZOMBIE(r, p, v) \
  :: atomic { l_zombie > 0 && ARRIVED(r, p, v) && (r) >= l_zombie && !d_started -> d_page[p] = v; l_zombie = 0 }
#else
#define ZOMBIE(r, p, v)
#endif
#define PACKETS(r, p) PAGE_PACKET(r, p, 0) PAGE_PACKET(r, p, 1) PAGE_PACKET(r, p, 2)

#ifdef UNNUMBERED_SLICES
#define PLACE(i) (HAS(sliced[l_attempt], 4) -> 1 : 0) /* behind what came before */
#else
#define PLACE(i) (i)
#endif
#define SLICE_PACKET(i) \
  :: atomic { l == receiving && l_unnoted == 0 && sliced[l_attempt] > 0 && sliced[l_attempt] >= l_round && !HAS(sliced[l_attempt], 4 << PLACE(i)) -> \
      d_slice[PLACE(i)] = (i) + 1; note(sliced[l_attempt], 4 << PLACE(i)) }

inline start_at_destination() {
  one_guest_at_most = !s_runs; assert(one_guest_at_most);
  memory_is_equal = (d_page[0] == s_page[0] && d_page[1] == s_page[1]); assert(memory_is_equal);
  device_state_is_whole = (d_slice[0] == 1 && d_slice[1] == 2); assert(device_state_is_whole);
#ifdef REACH
  assert((seen & REACH) != REACH);
#endif
  d_runs = 1; d_started = 1; l = running
}
inline prepare(attempt) {
  end_session();
  d_loaded = 0; /* opening.ts openDestination: a copy that was loaded and never handed over goes */
  l = receiving; l_attempt = attempt;
  if :: (attempt) == claimed -> ready = ready | (1 << l_inc) :: else fi
}
#ifdef LATE_PREPARE
#define SPARES_LOADED(attempt) true
#else
#define SPARES_LOADED(attempt) (d_loaded < (attempt))
#endif
#if defined(UNCUT)
#define WORTH_PREPARING(attempt) ((attempt) <= claimed)
#elif defined(LATE_PREPARE)
#define WORTH_PREPARING(attempt) ((attempt) == claimed)
#else
#define WORTH_PREPARING(attempt) \
  ((attempt) == claimed && ATTEMPT(record) == (attempt) && (record & OPEN) && !(record & TAKEN) && STATE(record) != DESTINATION)
#endif
#define PREPARE(attempt) \
  :: atomic { WORTH_PREPARING(attempt) && !d_started && SPARES_LOADED(attempt) && (attempt) > l_failed && l_unnoted == 0 && \
      (l == none || (l == receiving && l_attempt < (attempt))) -> \
      prepare(attempt) }
#ifdef NO_SECOND_LOOK
#define MINE false
#else
#define MINE (record == AT_DESTINATION(l_attempt, l_inc))
#endif
#ifdef ABANDON_RESUMED
#define MAY_BE_ABANDONED true
#else
#define MAY_BE_ABANDONED (d_loaded < l_attempt) /* its predecessor may have asked for the guest already: only the record decides */
#endif
#define HOLDS ((MANIFEST(record) | SLICES) == ((MANIFEST(record) | SLICES) & l_items) && l_round == ROUND(record))

proctype Loader() {
end:
  do
  PREPARE(1) PREPARE(2)
  PACKETS(1, 0) PACKETS(1, 1) PACKETS(2, 0) PACKETS(2, 1) PACKETS(3, 0) PACKETS(3, 1)
  SLICE_PACKET(0) SLICE_PACKET(1)
  /* holds what the record promises: loads, then asks for the guest. destination.ts maybeLoad, commit */
  :: atomic { l == receiving && l_unnoted == 0 && STATE(record) == SWITCHING && ATTEMPT(record) == l_attempt && FOR_ME && HOLDS ->
      d_loaded = l_attempt;
#ifdef START_WITHOUT_WRITE
      start_at_destination()
#else
      l_live = 1; l_landed = 0; l = committing
#endif
    }
  :: atomic { l == committing && l_live -> land(AT_DESTINATION(l_attempt, l_inc)); l_landed = 1 }
  :: atomic { l == committing && l_landed -> l_landed = 0; start_at_destination() }
  :: atomic { l == committing && !l_live && !l_landed ->
      if
      :: MINE -> start_at_destination() /* by the request of its predecessor, whose session it resumed */
      :: !MINE -> end_session(); d_loaded = 0
      fi }
  /* recovery.ts recover: what was committed by whoever is started, once this process has come up */
#ifndef NO_LOADER_RECOVERY
  :: atomic { l != committing && !d_started && d_loaded > 0 && STATE(record) == DESTINATION -> start_at_destination() }
#endif
  /* abandoned, or the memory's file system is full: destination.ts abandon, localFailed */
  :: atomic { l == receiving && l_unnoted == 0 && MAY_BE_ABANDONED -> l_failed = l_attempt; d_loaded = 0; end_session() }
  /* death: the session goes on in the successor, or is lost, or the host dies with the guest's copy */
  :: atomic { MAY_DIE && (l == receiving || l == committing) ->
      if :: l == committing && l_live -> let_go(AT_DESTINATION(l_attempt, l_inc)) :: else fi;
      l_live = 0; l_landed = 0; resume_session() }
  :: atomic { MAY_DIE && l != none ->
      if :: l == committing && l_live -> let_go(AT_DESTINATION(l_attempt, l_inc)) :: else fi;
      l_live = 0; l_landed = 0; l_unnoted = 0; l_failed = 0; loader_deaths++;
      l = none; l_attempt = 0; l_round = 0; l_items = 0;
      if
      :: true
      :: d_loaded > 0 -> d_loaded = 0; died = died | (1 << l_inc)
      fi;
      l_inc++ }
  od
}

/* When nothing can move any more, one guest runs; or the host that it was handed over to has died with it. */
active proctype End() {
end:
  do
  :: atomic { timeout ->
      there_is_a_way_out = (s_runs != d_runs) || (STATE(record) == DESTINATION && (died & (1 << INCARNATION(record))));
      assert(there_is_a_way_out); break }
  od
}

init {
  atomic { run Record(); run Guest(); run Sender(); run Coordinator(); run Loader() }
}
