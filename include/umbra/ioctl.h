/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Private ioctls of a mounted umbrafs: what the kernel's FUSE does not pass by itself.
 *
 * They are made on an open descriptor of a file or directory of the mount. Offsets and lengths are bytes; reserved
 * fields (pad) must be zero. Fields marked (in) are read, (out) written. Common errors:
 *	ENOTTY	not an umbrafs mount (or one that does not know this call)
 *	EINVAL	a reserved field is not zero, unknown flags, a range that makes no sense
 *	EROFS	mounted read-only
 *	EIO	unreadable memory in the way; the file system has been stopped after a failure
 *	ENOSPC, EFBIG, EDQUOT as for write(2)
 *
 * Coherence with the kernel's page cache: pages of the *destination* range are written back and dropped before such a call changes
 * it and dropped again after it, before the call returns. Pages of the *source* that were dirtied through a shared writable
 * mapping are not: call fsync(2) on the source first (data written with write(2) needs nothing). Dirtying the destination
 * through a mapping while the call runs gives either result in that page. A call that changes the size leaves the kernel
 * with the old one until it asks: fstat(2) the file before copy_file_range(2) or sendfile(2) from it, or touching a mapping past
 * its old end; read(2), lseek(2) and append ask by themselves.
 *
 * Limits of the process (RLIMIT_FSIZE) are the kernel's to apply, which does not look into these calls: they do not count here.
 */
#ifndef UMBRA_IOCTL_H
#define UMBRA_IOCTL_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define UMBRA_IOC_TYPE 0xd5

/*
 * Names an open file to another call. Taken from an open descriptor (so the kernel has checked the right to open it), it is
 * random, good for one use, within a minute, by the process that took it. Users other than root have at most 64 at a time;
 * one more takes the place of that user's oldest.
 */
struct umbra_token {
	__u8 bytes[32];
};
/* EBADF: opened with O_WRONLY (a source must be readable). */
#define UMBRA_IOC_TOKEN _IOR(UMBRA_IOC_TYPE, 1, struct umbra_token)

/*
 * Makes [dst_off, dst_off + len) of this file share the blocks of [src_off, src_off + len) of the token's file, all of it or
 * nothing (FICLONERANGE's rules: whole blocks, or up to the end of the source; len 0 = to the end of the source).
 * The kernel knows a new size when it next asks for it: statx() with AT_STATX_FORCE_SYNC. Until then sendfile, copy_file_range and mappings of its own end where the file did.
 *	EBADF	this descriptor is not open for writing, or open with O_APPEND
 *	EACCES	the token is not known, used up, too old or another process's
 *	EINVAL	not aligned to blocks, past the end of the source, overlapping in one file, not regular files
 */
struct umbra_clone_range {
	struct umbra_token token;    /* (in) */
	__u64 src_off, len, dst_off; /* (in) */
	__u64 flags;                 /* (in) 0 */
	__u64 cloned;                /* (out) bytes that are shared now */
};
#define UMBRA_IOC_CLONE_RANGE _IOWR(UMBRA_IOC_TYPE, 2, struct umbra_clone_range)

/*
 * Compares the two ranges and, if they are equal, makes this file share the blocks of the token's file. Alignment and errors as
 * for CLONE_RANGE; len is from 1 to UMBRA_DEDUPE_MAX and not cut. status: 0 shared, 1 the bytes differ and nothing was done.
 */
#define UMBRA_DEDUPE_MAX (64u << 20)
struct umbra_dedupe_range {
	struct umbra_token token;    /* (in) */
	__u64 src_off, len, dst_off; /* (in) */
	__u32 flags;                 /* (in) 0 */
	__u32 status;                /* (out) */
	__u64 deduped;               /* (out) bytes */
};
#define UMBRA_IOC_DEDUPE_RANGE _IOWR(UMBRA_IOC_TYPE, 3, struct umbra_dedupe_range)

/* One piece of a file. A hole is not listed. */
#define UMBRA_EXTENT_UNWRITTEN 0x1u /* allocated, reads as zero */
#define UMBRA_EXTENT_SHARED 0x2u    /* owners > 1 */
#define UMBRA_EXTENT_INLINE 0x4u    /* in the inode itself: dev_off is that of the inode */
#define UMBRA_EXTENT_LAST 0x8u      /* the last one of the file */
#define UMBRA_EXTENT_BAD \
	0x10u /* in bad memory that the file could not leave; whoever stores to it gets another block */
struct umbra_extent {
	__u64 file_off, dev_off, len;
	__u32 flags;
	__u32 owners; /* how many files (or places of one file) have these blocks */
};
#define UMBRA_EXTENTS_MAX 500
/* Pieces from byte off on; ask again from the end of the last one until count is 0 or the last piece says LAST. */
struct umbra_extents {
	__u64 off;   /* (in) */
	__u32 flags; /* (in) 0 */
	__u32 count; /* (in) 0 or how many at most; (out) how many there are */
	struct umbra_extent extents[UMBRA_EXTENTS_MAX]; /* (out) */
};
#define UMBRA_IOC_EXTENTS _IOWR(UMBRA_IOC_TYPE, 4, struct umbra_extents)

/*
 * fallocate(2) with all its modes: COLLAPSE_RANGE, INSERT_RANGE and UNSHARE_RANGE too, which the kernel does not pass on.
 * EBADF: not open for writing. Else as fallocate(2). Of a new size the kernel hears as after CLONE_RANGE.
 */
struct umbra_fallocate {
	__u64 off, len; /* (in) */
	__u32 mode;     /* (in) FALLOC_FL_* */
	__u32 pad;
};
#define UMBRA_IOC_FALLOCATE _IOW(UMBRA_IOC_TYPE, 5, struct umbra_fallocate)

/* What the pool is. */
#define UMBRA_INFO_READONLY 0x1u /* mounted read-only */
#define UMBRA_INFO_META_DUP 0x2u /* metadata is kept twice */
#define UMBRA_INFO_DEVICE 0x4u   /* a device-DAX node */
#define UMBRA_INFO_FAILED 0x8u   /* takes no writes any more: see failed */
struct umbra_info {
	__u32 major, minor; /* format */
	__u32 block_size, ag_count;
	__u64 size, ag_size; /* bytes */
	__u64 compat, ro_compat, incompat;
	__u64 created_ns, mounted_ns; /* since 1970 */
	__u64 align;                  /* of direct mappings of the device */
	__u32 mount_count, lane_count, lane_size;
	__u32 flags; /* UMBRA_INFO_* */
	__u32 threads;
	__u32 pid; /* of the daemon */
	__u8 uuid[16];
	char label[40];
	char durability[16]; /* flush, msync or process */
	char version[24];    /* of the daemon */
	char failed[128];    /* why, if it has failed */
	char pool[1024];     /* path as given at mount */
};
#define UMBRA_IOC_INFO _IOR(UMBRA_IOC_TYPE, 6, struct umbra_info)

/* How full it is and what it has done since the mount. */
struct umbra_stats {
	__u64 total_blocks, free_blocks, reserve_blocks; /* as statfs: the reserve is not in free */
	__u64 inodes, free_inodes;
	__u64 meta_chunks, meta_free_units;
	__u64 commits, aborts, retries, lines_logged, heals, damaged_units, replayed_records;
	__u64 cached_inodes;
	__u64 requests, read_bytes, written_bytes, cloned_bytes;
	/* Times that metadata met bad memory; bad blocks, blocks of files with something lost (for each owner), bytes lost so */
	__u64 bad_reads, bad_blocks, lost_blocks, lost_bytes;
	__u64 zeroed_blocks, zeroed_bytes; /* of files that want zeroes in such a place */
	/* Direct mappings (docs/PROTOCOL.md): what is; then how often somebody was asked to let go, and did not answer in time */
	__u64 sessions, orphan_sessions, shadows, masters, quarantine_blocks, shadow_bytes;
	__u64 revokes, late_revokes;
	__u64 pad[2];
};
#define UMBRA_IOC_STATS _IOR(UMBRA_IOC_TYPE, 7, struct umbra_stats)

/*
 * Who owns a range of the device. For root and the user who mounted. Records follow each other in data, record_size bytes each
 * (a multiple of 8); an owner of several pieces comes several times. Ask again with what came back in cursor; done when count is 0.
 * Not a snapshot: what changes between two calls may be seen or not.
 *	EINVAL	unknown flags, or the range leaves the device
 *	EPERM	neither root nor the mounting user
 */
enum umbra_owner_kind {
	UMBRA_OWNER_FILE = 1, /* ino, file_off, path */
	UMBRA_OWNER_TREE,     /* not used by this version */
	UMBRA_OWNER_SUPER,
	UMBRA_OWNER_JOURNAL,
	UMBRA_OWNER_GROUP,   /* header and trees of an allocation group */
	UMBRA_OWNER_META,    /* chunk of metadata: inodes and trees */
	UMBRA_OWNER_MIRROR,  /* second copy of such a chunk */
	UMBRA_OWNER_BAD,     /* bad memory that nobody may use */
	UMBRA_OWNER_REMAP,   /* stands in for one unit of metadata */
	UMBRA_OWNER_FORWARD, /* being moved */
	UMBRA_OWNER_SPARE,   /* beside superblock and journal: nothing lies there, and nobody gets it */
};
#define UMBRA_OWNER_PATH_LONG 0xffffffffu /* path_len: it has a path, of 8192 bytes or more; none follows */
struct umbra_owner {
	__u64 dev_off, len;
	__u64 ino, file_off; /* of files */
	__u16 kind;
	__u16 record_size;
	__u32 path_len; /* 0: no name any more (an unlinked file that is still open); UMBRA_OWNER_PATH_LONG: see there */
	char path[]; /* from the root of the mount, not NUL-terminated */
};
#define UMBRA_OWNERS_DATA 16000
#define UMBRA_OWNERS_NO_PATHS 0x1u /* path_len is 0: paths are not looked up, which is most of the work */
struct umbra_owners {
	__u64 dev_off, len;           /* (in) */
	__u64 cursor[3];              /* (in) zeros at first; (out) */
	__u32 count;                  /* (out) records in data */
	__u32 flags;                  /* (in) 0 or UMBRA_OWNERS_NO_PATHS */
	__u8 data[UMBRA_OWNERS_DATA]; /* (out) */
};
#define UMBRA_IOC_OWNERS _IOWR(UMBRA_IOC_TYPE, 8, struct umbra_owners)

/*
 * Clones whole files by inode number into this directory: data shared, owner, mode, times and attributes as the source's. For root,
 * since nobody checks the right to read each of them; the kernel's dirty pages of the sources are the caller's to flush (syncfs(2)).
 * Stops at the first error: done says how many names were made, error (an errno) why the next one was not.
 *	EPERM	not root
 *	ENOTDIR	not a directory
 */
struct umbra_clone_name {
	__u64 ino;
	__u16 record_size; /* multiple of 8 */
	__u16 name_len;
	__u32 pad;
	char name[]; /* not NUL-terminated */
};
#define UMBRA_CLONE_DATA 16320
struct umbra_clone_files {
	__u32 count;                 /* (in) records in data */
	__u32 size;                  /* (in) bytes of data in use */
	__u32 done;                  /* (out) */
	__u32 error;                 /* (out) */
	__u8 data[UMBRA_CLONE_DATA]; /* (in) struct umbra_clone_name */
};
#define UMBRA_IOC_CLONE_FILES _IOWR(UMBRA_IOC_TYPE, 9, struct umbra_clone_files)

/*
 * Scrub: reads both copies of all metadata of the mounted file system and mends one from the other. For root and the user who mounted;
 * its status for everybody.
 *	EBUSY	UMBRA_SCRUB_START: it runs already
 *	EPERM	neither root nor the mounting user
 */
enum umbra_scrub_op { UMBRA_SCRUB_STATUS, UMBRA_SCRUB_START, UMBRA_SCRUB_STOP, UMBRA_SCRUB_RATE };
enum umbra_scrub_state {
	UMBRA_SCRUB_NONE, /* not since the mount */
	UMBRA_SCRUB_RUNS,
	UMBRA_SCRUB_DONE,
	UMBRA_SCRUB_STOPPED,
	UMBRA_SCRUB_FAILED, /* see error */
};
struct umbra_scrub {
	__u32 op;                 /* (in) enum umbra_scrub_op */
	__u32 state;              /* (out) enum umbra_scrub_state */
	__u64 rate;               /* (in: START, RATE) (out) at most so many bytes a second; 0: no limit */
	__u64 started_s, ended_s; /* (out) since 1970 */
	__u64 total_bytes;        /* (out) to be read, about */
	__u64 done_bytes;         /* (out) */
	__u64 healed, lost,
		unhealed; /* (out) copies written anew; units without a sound copy; bad copies that could not be written */
	__u32 error; /* (out) an errno */
	__u32 pad;
	__u64 run_ns; /* (out) so long it took, or has run */
	__u64 cpu_ns; /* (out) and so long of that it had a core */
};
#define UMBRA_IOC_SCRUB _IOWR(UMBRA_IOC_TYPE, 10, struct umbra_scrub)

/*
 * The pool takes in what its device or file has gained. A plain file is made size bytes large before, if size is not 0. What does not fill 2 MiB
 * is left out, and less than 16 MiB past the last whole group too. For root and the user who mounted.
 *	EALREADY	there is nothing to grow on
 *	EBUSY		it grows already
 *	EINVAL		size is not a multiple of 4096 or less than it has, or was given for a device
 *	EOVERFLOW	more than this mount has kept addresses for: unmount, and mount again
 *	EPERM		neither root nor the mounting user
 */
struct umbra_grow {
	__u64 size;     /* (in) of the file, or 0; (out) of the file system */
	__u64 old_size; /* (out) of the file system before */
	__u64 pad[2];
};
#define UMBRA_IOC_GROW _IOWR(UMBRA_IOC_TYPE, 11, struct umbra_grow)

/*
 * What files have lost to bad memory and not got back: per file and block of 4096 bytes the lines of 64 bytes that cannot be read. For root and the
 * user who mounted. Records follow each other in data, as in umbra_owners; ask again with what came back in cursor until count is 0.
 */
struct umbra_loss {
	__u64 ino, file_off; /* of the block */
	__u64 lost_lines;    /* bit i: bytes 64 * i to 64 * i + 63 of the block */
	__u64 since_s;       /* since 1970 */
	__u32 record_size;   /* a multiple of 8 */
	__u32 path_len;      /* as in umbra_owner */
	char path[];
};
struct umbra_losses {
	__u64 cursor[3]; /* (in) zeros at first; (out) */
	__u32 count;     /* (out) records in data */
	__u32 pad;
	__u8 data[UMBRA_OWNERS_DATA]; /* (out) */
};
#define UMBRA_IOC_LOSSES _IOWR(UMBRA_IOC_TYPE, 12, struct umbra_losses)

/*
 * What bad memory has done since the mount, oldest first, an event for each owner. The daemon keeps the last UMBRA_EVENTS_KEPT. For root and the
 * user who mounted.
 */
#define UMBRA_EVENTS_KEPT 16384
enum umbra_event_kind {
	UMBRA_EVENT_LOST = 1, /* a file lost lines of a block, which has moved */
	UMBRA_EVENT_MOVED,    /* a file's block has moved, nothing of it is lost */
	UMBRA_EVENT_UNUSED,   /* the block was nobody's */
	UMBRA_EVENT_PASSED,   /* it can be read again: nothing was done */
	UMBRA_EVENT_META,     /* it held metadata, of which the other copy serves */
	UMBRA_EVENT_ZEROED, /* a file has zeroes in the place of lost_lines, as it wants (user.umbra.on_poison) */
};
struct umbra_event {
	__u64 number;        /* from 1 on, without gaps */
	__u64 time_ns;       /* since 1970 */
	__u64 dev_off;       /* the bad block */
	__u64 ino, file_off; /* of files */
	__u64 lost_lines;
	__u16 kind;
	__u16 record_size;
	__u32 path_len; /* as in umbra_owner, of the time that it is asked for */
	char path[];
};
struct umbra_events {
	__u64 after;  /* (in) number of the last event seen, or 0; (out) of the last one in data */
	__u64 missed; /* (out) events after it that are no longer kept */
	__u32 count;  /* (out) records in data */
	__u32 pad;    /* (in) 0 */
	__u8 data[UMBRA_OWNERS_DATA]; /* (out) */
};
#define UMBRA_IOC_EVENTS _IOWR(UMBRA_IOC_TYPE, 13, struct umbra_events)

/*
 * Takes blocks out of use by hand, readable or not: files and metadata in them move, what cannot be read is lost. For root and the user who
 * mounted. What files cannot leave now, but is written down (out of use when there is a block to move to, or when the files go), does not stop it, nor does what
 * somebody else is at: that is tried again after the others. Stops at the first block of which neither can be said; those behind it may be done or not.
 *	ENOSPC	no block to move to, and no room to write that down
 *	EBUSY	somebody is at it all the time, or on his way to it
 *	EINPROGRESS	it has come to the end, but later is not 0
 */
enum umbra_poison_op { UMBRA_POISON_ADD = 1 };
struct umbra_poison {
	__u32 op;       /* (in) enum umbra_poison_op */
	__u32 pad;      /* (in) 0 */
	__u64 off, len; /* (in) whole blocks of 4096 bytes, at most UMBRA_POISON_MAX bytes */
	__u64 done;     /* (out) bytes, also on errors */
	__u32 error;    /* (out) an errno: why it stopped */
	__u32 later;    /* (out) bytes of those done that files still have */
};
#define UMBRA_POISON_MAX (2u << 20)
#define UMBRA_IOC_POISON _IOWR(UMBRA_IOC_TYPE, 14, struct umbra_poison)

/*
 * Gives blocks that are out of use since their memory is bad back to use, those that can be read and written. UMBRA_POISON_CLEAR: after the device has
 * cleared them; UMBRA_POISON_FORGET: as they are. For root and the user who mounted. Stops at the first block of which nothing can be said.
 */
enum umbra_poison_clear_op { UMBRA_POISON_CLEAR = 1, UMBRA_POISON_FORGET };
enum umbra_poison_result {
	UMBRA_POISON_FREED = 1, /* it is free, or the files' alone that could not leave it */
	UMBRA_POISON_NOT_BAD,   /* it was not out of use */
	UMBRA_POISON_IN_USE,    /* it is bad, but somebody still has it */
	UMBRA_POISON_STILL_BAD, /* it cannot be read and written: it stays out of use, as with the next two */
	UMBRA_POISON_CANNOT_CLEAR, /* there is no device that could clear it */
	UMBRA_POISON_NOT_CLEARED,  /* the device did not clear it */
};
#define UMBRA_POISON_BLOCKS 512
struct umbra_poison_clear {
	__u32 op;       /* (in) enum umbra_poison_clear_op */
	__u32 pad;      /* (in) 0 */
	__u64 off, len; /* (in) whole blocks of 4096 bytes, at most UMBRA_POISON_MAX bytes */
	__u64 done;     /* (out) bytes, also on errors */
	__u32 error;    /* (out) an errno: why it stopped */
	__u32 pad2;
	__u8 result[UMBRA_POISON_BLOCKS]; /* (out) of each block that is done: enum umbra_poison_result */
};
#define UMBRA_IOC_POISON_CLEAR _IOWR(UMBRA_IOC_TYPE, 16, struct umbra_poison_clear)

/*
 * Puts back what this file has lost in one block, from a copy of the whole block, for all files that share it, whoever owns them. Stores only
 * what was lost. For root and the user who mounted.
 *	EBADF	not open for writing
 *	EBADMSG	what can be read of the block is not what the copy has; nothing was done
 *	ENODATA	nothing of the block is lost
 *	EPERM	neither root nor the mounting user
 */
#define UMBRA_REPAIR_NAMED 8u
struct umbra_repair {
	__u64 off;    /* (in) in the file, of a block of 4096 bytes */
	__u32 healed; /* (out) places that had lost it: of this file, and of those that share the block */
	__u32 damaged; /* (in) 0; (out) files that share it, of which nothing could be done since they are damaged themselves */
	__u64 damaged_inos[UMBRA_REPAIR_NAMED]; /* (out) the first ones of them */
	__u8 block[4096];                       /* (in) zeroes past the end of the file */
};
#define UMBRA_IOC_REPAIR _IOWR(UMBRA_IOC_TYPE, 15, struct umbra_repair)

/*
 * What bad memory has done that is still so, over all mounts, in figures (umbra_stats counts since the mount). For everybody. The blocks out of use are
 * counted when they have changed, which takes a look at every owner of the pool.
 */
struct umbra_damage {
	__u64 lost_files, lost_blocks, lost_bytes; /* recorded: UMBRA_IOC_LOSSES lists them */
	__u64 bad_blocks;                          /* out of use */
	__u64 pad[4];
};
#define UMBRA_IOC_DAMAGE _IOR(UMBRA_IOC_TYPE, 19, struct umbra_damage)

/*
 * Empties a range of the device: what files and metadata have there moves elsewhere, while all go on. Begun with START; then a piece with each STEP, until
 * state says that it is done. Nothing is handed out of the range meanwhile. In the end it can be used again, or with MARK_BAD is out of use as
 * if its memory were bad. After a crash it is begun anew, and goes on where it was. For root and the user who mounted.
 *	ECANCELED	STEP: another one has been begun, or it has been stopped, or nobody went on with it and there was no space elsewhere
 *	EINVAL		the range is empty or past the end
 *	EPERM		neither root nor the mounting user
 */
enum umbra_evacuate_op { UMBRA_EVACUATE_START = 1, UMBRA_EVACUATE_STEP, UMBRA_EVACUATE_STOP };
enum umbra_evacuate_state { UMBRA_EVACUATE_RUNS = 1, UMBRA_EVACUATE_DONE };
#define UMBRA_EVACUATE_MARK_BAD 0x1u
struct umbra_evacuate {
	__u32 op;       /* (in) enum umbra_evacuate_op */
	__u32 flags;    /* (in: START) UMBRA_EVACUATE_* */
	__u64 id;       /* (out: START) (in: STEP, STOP) */
	__u64 off, len; /* (in: START) any bytes; (out) whole blocks, as far as the file system goes */
	__u32 state;    /* (out) enum umbra_evacuate_state */
	__u32 error; /* (out) an errno: why it has ended; ENOSPC with START: nothing was done, see the next four */
	__u64 needed_bytes, free_bytes;   /* (out) to move to; free outside of the range */
	__u64 needed_chunks, free_chunks; /* (out) of them whole ones of 2 MiB, for metadata */
	__u64 total_bytes;                /* (out) what could move, at the start */
	__u64 data_bytes, shared_bytes,
		meta_bytes; /* (out) moved so far: of one file, of several, of the file system */
	__u64 left_bytes;   /* (out) cannot move: see UMBRA_IOC_OWNERS */
	__u64 pad[4];       /* (in) 0 */
};
#define UMBRA_IOC_EVACUATE _IOWR(UMBRA_IOC_TYPE, 18, struct umbra_evacuate)

/* 20 and 21 are in <umbra/direct.h>. */

/*
 * Who has which pieces of which files mapped directly. For root and the user who mounted. Ask again with what came back in cursor until count is 0.
 */
#define UMBRA_SHADOW_WRITE 0x1u  /* may be stored to */
#define UMBRA_SHADOW_HOLE 0x2u   /* of a hole: dev_off is 0 */
#define UMBRA_SHADOW_ORPHAN 0x4u /* its session has ended without a word, or does not answer */
struct umbra_shadow {
	__u64 session;
	__u64 ino, file_off, dev_off, len;
	__u32 pid;
	__u32 flags; /* UMBRA_SHADOW_* */
};
#define UMBRA_SHADOWS_MAX 256
struct umbra_shadows {
	__u64 cursor[3];    /* (in) zeros at first; (out) */
	__u64 dev_off, len; /* (in) only those on these bytes of the device; 0, 0: all */
	__u64 ino;          /* (in) only those of this file; 0: all */
	__u32 pid;          /* (in) only those of this process; 0: all */
	__u32 count;        /* (in) 0; (out) */
	struct umbra_shadow shadows[UMBRA_SHADOWS_MAX]; /* (out) */
};
#define UMBRA_IOC_SHADOWS _IOWR(UMBRA_IOC_TYPE, 22, struct umbra_shadows)

/*
 * Another program takes over the mount, which goes on (umbrafs -o keeper; else EOPNOTSUPP; ESRCH: the keeper has been killed). For root. START only begins it: it is over when
 * a daemon answers STATUS whose starts are others, and state is not RUNS; or with FAILED.
 */
#define UMBRA_UPGRADE_STATUS 0
#define UMBRA_UPGRADE_START 1
#define UMBRA_UPGRADE_NONE 0
#define UMBRA_UPGRADE_RUNS 1
#define UMBRA_UPGRADE_DONE 2
#define UMBRA_UPGRADE_FAILED 3 /* the program does not take over; the daemon before serves again */
struct umbra_upgrade {
	__u32 op;             /* (in) */
	__u32 state;          /* (out) of the last one */
	__u32 starts, deaths; /* (out) daemons of this mount so far, and those that ended badly */
	__u32 pid;            /* (out) of the daemon */
	__u32 pad;
	char version[24];   /* (out) of the daemon */
	char program[1024]; /* (in) its path; "": as this daemon's; (out) which one */
	char why[256];      /* (out) it has failed */
};
#define UMBRA_IOC_UPGRADE _IOWR(UMBRA_IOC_TYPE, 23, struct umbra_upgrade)

#endif
