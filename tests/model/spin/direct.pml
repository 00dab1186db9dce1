/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Direct mappings as a Spin model: a file of one page, a second file that may share its block, processes that map the page, and whoever changes it.
 *
 *	no block gets another owner while a process that lives maps it;
 *	none is shared while one may store to it through a mapping;
 *	nobody waits for ever.
 *
 * A process may crash, stop for ever, or be late at any step; whoever waits for it may give it up at any moment. With one of LEAVE_ACK, LEAVE_MARK,
 * LEAVE_ORDER, LEAVE_KEEP, LEAVE_PROTECT, LEAVE_REAP, LEAVE_RIGHTS, LEAVE_BUSY, LEAVE_ANSWER a step is left out, and one of these must be found not to hold.
 */
#ifndef CLIENTS
#define CLIENTS 2
#endif
#ifndef REQUESTS
#define REQUESTS 2 /* of each process */
#endif
#ifndef CHANGES
#define CHANGES 2 /* of each who changes */
#endif
#ifndef CHANGERS
#define CHANGERS 1
#endif
#define BLOCKS 3

mtype = { ANSWER, REVOKE, PROTECT };
#define SHARE 1
#define MOVE 2
#define FREE 0
#define USED 1
#define KEPT 2

/* What processes have: 0 is no page. Only they know. */
byte map[CLIENTS];
bool mapw[CLIENTS];

/* What the registry knows. */
byte shadow[CLIENTS];
bool shadow_w[CLIENTS];
bool lost[CLIENTS];
bool asked[CLIENTS], asked_w[CLIENTS]; /* revokes without an answer: of all, of the right to store */
bool order[CLIENTS];
byte changing;

/* What the file system knows. */
byte use[BLOCKS + 1], refs[BLOCKS + 1];
byte file = 1, other = 0; /* their blocks */

/* Requests: 0 none, 1 to read, 2 to store. */
byte request[CLIENTS];
bool release[CLIENTS];
chan to[CLIENTS] = [4] of { mtype, byte, bool };

/* Of two processes, which is enough to have one that is in the way of the other. */
#define HAS(b) (shadow[0] == (b) || (CLIENTS > 1 && shadow[CLIENTS - 1] == (b)))
#define MAPS(b) (map[0] == (b) || (CLIENTS > 1 && map[CLIENTS - 1] == (b)))
#define STORES(b) ((map[0] == (b) && mapw[0]) || (CLIENTS > 1 && map[CLIENTS - 1] == (b) && mapw[CLIENTS - 1]))
#define HOLDS(i, k) (!lost[i] && (k == MOVE -> shadow[i] != 0 : shadow_w[i]))
#define HELD(k) (HOLDS(0, k) || (CLIENTS > 1 && HOLDS(CLIENTS - 1, k)))
#define WAITS(i, k) (HOLDS(i, k) || (!lost[i] && (asked[i] || asked_w[i])))
#define STUCK(i) (lost[i] && shadow_w[i])
#ifdef LEAVE_BUSY
#define BUSY(k) false
#else
#define BUSY(k) (k == SHARE && (STUCK(0) || (CLIENTS > 1 && STUCK(CLIENTS - 1))))
#endif

#ifdef LEAVE_PROTECT
#define IN_THE_WAY(k) (k == MOVE && HELD(k))
#elif defined(LEAVE_ACK)
#define IN_THE_WAY(k) (!begun && (HELD(k) || BUSY(k)))
#else
#define IN_THE_WAY(k) (HELD(k) || BUSY(k))
#endif

inline settle(b)
{
	if
	:: b != 0 && use[b] == KEPT && !HAS(b) -> use[b] = FREE
	:: else
	fi
}

inline forget(i)
{
	gone = shadow[i];
	shadow[i] = 0;
	shadow_w[i] = false;
	settle(gone);
	gone = 0
}

inline unown(b)
{
	if
	:: b != 0 ->
		refs[b]--;
		if
#ifndef LEAVE_KEEP
		:: refs[b] == 0 && HAS(b) -> use[b] = KEPT
		:: refs[b] == 0 && !HAS(b) -> use[b] = FREE
#else
		:: refs[b] == 0 -> use[b] = FREE
#endif
		:: else
		fi
	:: else
	fi
}

/* A session is given up. */
inline lose(i)
{
	lost[i] = true;
	asked[i] = false;
	asked_w[i] = false
}

/* Notes whom to ask; then each is told, in the order of his messages. */
inline note(i, k, mask)
{
	if
	:: HOLDS(i, k) && k == MOVE && !asked[i] -> asked[i] = true; ask = ask | mask
	:: HOLDS(i, k) && k == SHARE && !asked[i] && !asked_w[i] -> asked_w[i] = true; ask = ask | mask
	:: else
	fi
}

inline tell(i, k, mask)
{
	if
	:: (ask & mask) != 0 ->
#ifdef LEAVE_ORDER
		atomic {
#else
		atomic { !order[i] ->
#endif
			if
			:: lost[i]
			:: !lost[i] && k == MOVE -> to[i]!REVOKE, 0, 0
			:: !lost[i] && k == SHARE -> to[i]!PROTECT, 0, 0
			fi
		}
	:: else
	fi
}

/* Under the lock of the inode. */
inline edit(k)
{
	if
	:: k == MOVE ->
		fresh = 0;
		if
		:: use[1] == FREE -> fresh = 1
		:: use[2] == FREE -> fresh = 2
		:: use[3] == FREE -> fresh = 3
		:: else
		fi;
		if
		:: fresh != 0 ->
			assert(!MAPS(fresh));
			use[fresh] = USED;
			refs[fresh] = 1;
			unown(file);
			file = fresh
		:: else
		fi;
		fresh = 0
	:: k == SHARE && other != file ->
		assert(!STORES(file));
		unown(other);
		other = file;
		refs[file]++
	:: else
	fi
}

/* An operation on the file: once more after those in its way have been asked. */
inline change(k)
{
	begun = false;
	failed = false;
	done = false;
	do
	:: done || failed -> break
	:: else ->
		atomic {
			if
			:: IN_THE_WAY(k) ->
				assert(!begun);
				changing++;
				begun = true;
				ask = 0;
				if
				:: BUSY(k) -> failed = true
				:: else ->
					note(0, k, 1);
					if
					:: CLIENTS > 1 -> note(CLIENTS - 1, k, 2)
					:: else
					fi
				fi
			:: else -> edit(k); done = true
			fi
		}
		if
		:: done || failed
		:: else ->
			tell(0, k, 1);
			if
			:: CLIENTS > 1 -> tell(CLIENTS - 1, k, 2)
			:: else
			fi;
			do
#ifdef LEAVE_ACK
			:: true -> break
#else
			:: atomic { !WAITS(0, k) && !(CLIENTS > 1 && WAITS(CLIENTS - 1, k)) -> failed = BUSY(k) }; break
			:: atomic { WAITS(0, k) -> lose(0) }
			:: atomic { CLIENTS > 1 && WAITS(CLIENTS - 1, k) -> lose(CLIENTS - 1) }
#endif
			od
		fi
	od;
	if
	:: begun -> atomic { changing--; begun = false }
	:: else
	fi
}

proctype changer()
{
	byte n = 0, ask = 0, fresh = 0;
	bool begun, failed, done;

	do
	:: n == CHANGES -> break
	:: n < CHANGES -> n++; change(MOVE)
	:: n < CHANGES -> n++; change(SHARE)
	:: n < CHANGES -> n++; atomic { unown(other); other = 0 }
	od
}

/* The daemon's thread for the requests of a session. */
proctype server(byte i)
{
	byte ask = 0, fresh = 0, gone = 0, given;
	bool begun, failed, done, taken, w;

end:	do
	:: atomic { request[i] != 0 ->
			w = (request[i] == 2);
			if
			:: release[i] -> forget(i); release[i] = false
			:: else
			fi
		};
		do
		:: taken || lost[i] -> break
		:: else ->
			if
			:: w && refs[file] > 1 -> change(MOVE)
			:: else
			fi;
#ifndef LEAVE_MARK
			(changing == 0 || lost[i]);
#endif
			atomic { !order[i] -> order[i] = true };
			atomic {
				if
				:: lost[i]
#ifndef LEAVE_MARK
				:: !lost[i] && changing > 0
				:: !lost[i] && changing == 0 ->
#else
				:: !lost[i] ->
#endif
					gone = shadow[i];
					given = file;
					w = w && refs[file] == 1;
#ifndef LEAVE_RIGHTS
					/* Until it has the answer it may store as before. */
					shadow_w[i] = w || (shadow_w[i] && shadow[i] == given);
#else
					shadow_w[i] = w;
#endif
					shadow[i] = given;
					settle(gone);
					gone = 0;
					taken = true
				fi
			};
			if
			:: taken -> to[i]!ANSWER, given, w
			:: else
			fi;
			order[i] = false
		od;
		atomic { given = 0; w = false; taken = false; request[i] = 0 }
	od
}

proctype client(byte i)
{
	byte n = 0, given, gone = 0;
	bool w, waits = false;

	do
	/* What it has asked for it gives back only when it has read the answer. */
#ifdef LEAVE_ANSWER
	:: n < REQUESTS && request[i] == 0 && !lost[i] ->
#else
	:: n < REQUESTS && request[i] == 0 && !lost[i] && !waits ->
#endif
		atomic {
			n++;
			waits = true;
			if
			:: request[i] = 1
			:: request[i] = 2
			:: map[i] = 0; mapw[i] = false; release[i] = true; request[i] = 2
			fi
		}
	:: atomic { to[i]?ANSWER, given, w -> map[i] = given; mapw[i] = w; given = 0; w = false; waits = false }
	:: to[i]?REVOKE, _, _ ->
		atomic { map[i] = 0; mapw[i] = false };
		atomic {
			if
			:: asked[i] -> forget(i); asked[i] = false
			:: else
			fi
		}
	:: to[i]?PROTECT, _, _ ->
		mapw[i] = false;
		atomic {
			if
			:: asked_w[i] -> shadow_w[i] = false; asked_w[i] = false
			:: else
			fi
		}
	:: break
	od;
	if
	/* It stops for ever. */
	:: true
	/* The process dies; the daemon hears of it, and some time later it is gone for sure. */
	:: atomic { map[i] = 0; mapw[i] = false };
		atomic { lose(i) };
		request[i] == 0 -> atomic { forget(i) }
	/* Its socket ends, with the process and its mappings still there. */
	:: atomic { lose(i) };
#ifdef LEAVE_REAP
		request[i] == 0 -> atomic { forget(i) }
#else
		skip
#endif
	/* It says that it has let go of all. */
	:: request[i] == 0 -> atomic { map[i] = 0; mapw[i] = false };
		atomic { lose(i); forget(i) }
	fi
}

init
{
	byte i;

	atomic {
		use[1] = USED;
		refs[1] = 1;
		i = 0;
		do
		:: i < CLIENTS -> run server(i); run client(i); i++
		:: else -> break
		od;
		i = 0;
		do
		:: i < CHANGERS -> run changer(); i++
		:: else -> break
		od
	}
}
