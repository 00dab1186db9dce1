/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The file system: inodes, directories, file data, clones, attributes. Knows no FUSE.
 *
 * Every call is atomic after a crash and durable when it returns, but for access times (batched) and long frees (they go on in
 * the background under an intent or the orphan list). Results are 0 or a count, or -errno as the system call would give. Access
 * checks are the caller's (the kernel does them); the rules that only the file system can apply are applied here: setuid
 * clearing, setgid inheritance, ACL inheritance, link counts, limits.
 *
 * An inode number that fs_lookup, fs_create ... return is a reference, as in the FUSE protocol: the number is not given to another file
 * before as many fs_forget()s. Any other number may be passed too, and gives -ESTALE if it is not an inode.
 */
#ifndef UMBRA_FS_FS_H
#define UMBRA_FS_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "media/inode.h"
#include "txn/pool.h"
#include "util/util.h"

struct fs;
struct fs_ledger;

struct fs_opts {
	bool readonly;
	bool noatime;
	bool strictatime;
	bool background; /* a thread that frees orphans and batches access times; else fs_work() does */
	const struct fs_ledger
		*ledger; /* of a mount that another daemon can take over (ledger.h); NULL: none */
};

/* Opens the file system in an open pool (and the space floor under it), continues intents. */
must_check int fs_open(struct pool *pool, const struct fs_opts *opts, struct fs **out);
/* Gives back orphans that nobody references any more, writes pending access times. */
void fs_close(struct fs *fs);
/* Writes pending access times. */
void fs_flush(struct fs *fs);
/* Background work by hand: orphans, access times. For tests and fs_opts.background = false. */
void fs_work(struct fs *fs);
struct pool *fs_pool(const struct fs *fs);

#define FS_NAME_MAX 255u
#define FS_LINK_MAX 4000000000u
#define FS_SIZE_MAX ((1ull << 63) - BLOCK_SIZE) /* bytes */
#define FS_SYMLINK_MAX 4095u
#define FS_XATTR_VALUE_MAX 65536u

/* Who asks (for ownership of what is made, setgid rules) and the FUSE request. */
struct fs_cred {
	uint32_t uid, gid;
	uint32_t umask;
	bool kill_priv_exempt; /* CAP_FSETID: setuid and setgid stay on write and chmod */
	uint64_t request_id;
	/* Whether the group is one of his others. NULL: he has none. Asked inside of transactions. */
	bool (*has_group)(void *arg, uint32_t gid);
	void *group_arg;
	struct txn_receipt *
		receipt; /* of the request, for a daemon that is asked the same again (txn/receipt.h); NULL: none */
};

/* The same for calls without a cred that this thread makes from now on, until it is NULL again. */
void fs_receipt_set(struct txn_receipt *receipt);

/* inode_attr of media/inode.h is what getattr gives. A name is len bytes, any but NUL and '/'. */
must_check int fs_lookup(struct fs *fs, uint64_t dir, const char *name, size_t len, struct inode_attr *attr);
void fs_forget(struct fs *fs, uint64_t ino, uint64_t count);
/* One more reference to an inode by number and generation (NFS handle; gen 0 = any). -ESTALE. */
must_check int fs_ref(struct fs *fs, uint64_t ino, uint64_t gen, struct inode_attr *attr);
/* INODE_LOST: a part of it cannot be read, recorded or not. */
must_check int fs_getattr(struct fs *fs, uint64_t ino, struct inode_attr *attr);

#define FS_SET_MODE 0x1u
#define FS_SET_UID 0x2u
#define FS_SET_GID 0x4u
#define FS_SET_SIZE 0x8u
#define FS_SET_ATIME 0x10u
#define FS_SET_MTIME 0x20u
#define FS_SET_CTIME 0x40u
#define FS_SET_KILLPRIV \
	0x80u /* clear setuid, and setgid where group-executable or of a group that is not the caller's */
#define FS_SET_FLAGS 0x100u /* INODE_* that users may set */
#define FS_SET_PROJID 0x200u
#define FS_SET_NOTHING \
	0x800u /* chown(2) with neither owner nor group: what FS_SET_KILLPRIV clears only the owner may have cleared */
#define FS_SET_TOUCH 0x400u /* mtime moves even if the size stays as it is: ftruncate(2), O_TRUNC */
struct fs_set {
	uint32_t what;
	uint32_t mode, uid, gid, flags, projid;
	uint64_t size;
	struct inode_time atime, mtime, ctime;
};
/* Returns the new attributes. A mode also goes into an access ACL. */
must_check int fs_setattr(struct fs *fs, const struct fs_cred *cred, uint64_t ino, const struct fs_set *set,
			  struct inode_attr *attr);

/* mode has the type: S_IFREG, S_IFDIR, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK. One reference on success. */
must_check int fs_mknod(struct fs *fs, const struct fs_cred *cred, uint64_t dir, const char *name, size_t len,
			uint32_t mode, uint32_t rdev, struct inode_attr *attr);
/* An unnamed regular file (O_TMPFILE) owned as if made in dir; fs_link() names it. */
must_check int fs_tmpfile(struct fs *fs, const struct fs_cred *cred, uint64_t dir, uint32_t mode,
			  struct inode_attr *attr);
must_check int fs_symlink(struct fs *fs, const struct fs_cred *cred, uint64_t dir, const char *name,
			  size_t len, const char *target, size_t target_len, struct inode_attr *attr);
/* Reads into buf (FS_SYMLINK_MAX + 1 bytes, NUL-terminated). */
must_check int fs_readlink(struct fs *fs, uint64_t ino, char *buf);
must_check int fs_link(struct fs *fs, uint64_t ino, uint64_t dir, const char *name, size_t len,
		       struct inode_attr *attr);
must_check int fs_unlink(struct fs *fs, uint64_t dir, const char *name, size_t len);
must_check int fs_rmdir(struct fs *fs, uint64_t dir, const char *name, size_t len);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT of <linux/fs.h>. */
must_check int fs_rename(struct fs *fs, const struct fs_cred *cred, uint64_t dir, const char *name,
			 size_t len, uint64_t new_dir, const char *new_name, size_t new_len, unsigned flags);

/* Entries from cookie on (0 = from the start; then the cookie of the last one seen). fill returns non-zero to stop before that entry.
 * '.' and '..' come first. ref: entries get a reference and attr, as lookup (readdirplus); but '.', '..' and an inode that cannot be
 * read have neither, and without ref none has. fill is called with no lock held. */
struct fs_dirent {
	uint64_t ino;
	uint64_t cookie; /* of this entry: pass it to go on after it */
	uint8_t type;    /* DT_* */
	const char *name;
	size_t name_len;
	const struct inode_attr *attr;
};
must_check int fs_readdir(struct fs *fs, uint64_t dir, uint64_t cookie, bool ref,
			  int (*fill)(void *arg, const struct fs_dirent *entry), void *arg);

/* ---- data ---- */

#define FS_OPEN_WRITE 0x1u
#define FS_OPEN_MAP 0x2u      /* for reading too, so that a mapping may be stored to */
#define FS_OPEN_TRUNCATE 0x4u /* to nothing */
#define FS_OPEN_CACHED 0x8u   /* through the kernel's page cache */
/* Not for fs_opened(), but for fs_open_way() and then fs_closed(): */
#define FS_OPEN_THROUGH \
	0x10u /* writes through the page cache: the kernel stores to its pages, then sends what it stored */
#define FS_OPEN_BYPASS 0x20u /* bypasses it, and may be mapped */
#define FS_OPEN_PAGED 0x40u  /* fs_cached() was called for it */
/* Counts opens, so that an unlinked file stays until the last close (references alone keep the number). */
must_check int fs_opened(struct fs *fs, uint64_t ino, unsigned flags, const struct fs_cred *cred);
/* Flags: those of the open. */
void fs_closed(struct fs *fs, uint64_t ino, unsigned flags);
/* Whether somebody has it open with FS_OPEN_MAP now, so that pages of a mapping may be dirty. */
bool fs_is_mappable(struct fs *fs, uint64_t ino);
/*
 * How many have it open with FS_OPEN_CACHED now; one of them does not count as such any more (its fs_closed() has no FS_OPEN_CACHED); one that did not, and is open, does (its fs_closed()
 * has FS_OPEN_PAGED), until it is closed or the daemon is followed by another one.
 */
uint32_t fs_cached_opens(struct fs *fs, uint64_t ino);
void fs_uncached(struct fs *fs, uint64_t ino);
void fs_cached(struct fs *fs, uint64_t ino);

enum fs_way {
	FS_WAY_CACHED, /* through the page cache, if nothing is against it */
	FS_WAY_WANTS,  /* past it, if nothing is against it */
	FS_WAY_BYPASS, /* past it */
};
/*
 * After an open has been counted: whether it bypasses the page cache. flags: FS_OPEN_THROUGH if it writes otherwise, FS_OPEN_BYPASS if it may be mapped when it does; the one that holds is its
 * from here on, until fs_closed(). Beside each other they are not safe (modes.c), but for as many that write through it as are known to be harmless, since their process sees to that.
 */
bool fs_open_way(struct fs *fs, uint64_t ino, unsigned flags, enum fs_way way, uint32_t harmless);
/* Before it is asked again, of one that was told to write through the page cache. */
void fs_open_way_again(struct fs *fs, uint64_t ino);
/* How many write through the page cache, the harmless ones among them. */
uint32_t fs_through_opens(struct fs *fs, uint64_t ino);

/*
 * Bytes read (short at the end of the file, and before lost lines). Holes and unwritten ranges read as zero. Guarded: -EIO where the first byte is in a lost
 * line, or in one that cannot be read and stays where it is, since the mount is read-only or there is no space.
 */
must_check ssize_t fs_read(struct fs *fs, uint64_t ino, void *buf, size_t size_bytes, uint64_t off);
/* The same for pages that the kernel keeps, and -EIO for any lost line. Counted while the file is open for writing. */
must_check ssize_t fs_read_pages(struct fs *fs, uint64_t ino, void *buf, size_t size_bytes, uint64_t off);
/* The same without waiting for others: -EUSERS, if somebody who maps the file would have to be asked (holders.h). */
must_check ssize_t fs_read_pages_now(struct fs *fs, uint64_t ino, void *buf, size_t size_bytes, uint64_t off);
/* How many there were; 0 again when the last writer has closed it. */
uint64_t fs_page_reads(struct fs *fs, uint64_t ino);
#define FS_WRITE_APPEND 0x1u    /* at the end, whatever off says */
#define FS_WRITE_KILLPRIV 0x2u  /* clear setuid and setgid */
#define FS_WRITE_DROP_CAPS 0x8u /* take file capabilities (security.capability) away */
/*
 * Write-back of pages: never past the end of the file. What cannot be stored is left out, the rest is stored all the same, and then the
 * answer is that error: whoever writes pages back does not look at how much was stored.
 */
#define FS_WRITE_CACHED 0x4u
#define FS_WRITE_PAGES 0x10u /* the kernel keeps what it wrote in pages */
must_check ssize_t fs_write(struct fs *fs, const struct fs_cred *cred, uint64_t ino, const void *buf,
			    size_t size_bytes, uint64_t off, unsigned flags);
/*
 * A write around the page cache. -EAGAIN, and nothing was written, if pages have been read since there were page_reads of such reads. A
 * mapping may store into such an old page, which would then be written back over the write; and if the file becomes longer, zeroes past
 * the end that it had would be seen in it.
 */
struct fs_direct {
	uint64_t page_reads;
	bool mode_changed; /* out: setuid or setgid have gone, and the kernel does not know it */
};
must_check ssize_t fs_write_direct(struct fs *fs, const struct fs_cred *cred, uint64_t ino, const void *buf,
				   size_t size_bytes, uint64_t off, unsigned flags, struct fs_direct *direct);
/*
 * mode: FALLOC_FL_* of <linux/falloc.h>, all of them. UNSHARE_RANGE allocates as mode 0 does, and copies what is shared. -ENOSPC: of an
 * allocation a part may have been made, of a range to be zeroed a part may be zero; of a range to be punched only bytes in blocks that
 * are not wholly in it.
 */
must_check int fs_fallocate(struct fs *fs, const struct fs_cred *cred, uint64_t ino, int mode, uint64_t off,
			    uint64_t len);
/* whence SEEK_DATA or SEEK_HOLE; -ENXIO past the end. */
must_check int fs_seek(struct fs *fs, uint64_t ino, uint64_t off, int whence, uint64_t *found);

/*
 * Copies len bytes by sharing blocks wherever both offsets allow it; len is cut at the end of the source. Returns bytes copied;
 * *shared_bytes (may be NULL) how many of them without copying. What is shared comes all at once or, with an error or a crash, not at
 * all; bytes at the edges that have to be copied may have been stored then. Where all has to be copied (offsets that lie differently in
 * their blocks) it comes as far as there is space; -ENOSPC: nothing was stored. -EINVAL: overlap within one file. CLONE_STRICT:
 * FICLONERANGE's rules of what can be asked (whole blocks or to the end of both files, else -EINVAL; len 0 = to the end).
 */
#define FS_CLONE_STRICT 0x1u
#define FS_CLONE_KILLPRIV 0x2u
must_check int64_t fs_clone(struct fs *fs, const struct fs_cred *cred, uint64_t src, uint64_t src_off,
			    uint64_t dst, uint64_t dst_off, uint64_t len, unsigned flags,
			    uint64_t *shared_bytes);
/*
 * Shares equal ranges: *same = false and nothing done if the bytes differ (where the source has blocks that are known as bad: nothing behind what differs; it shares
 * the destination's blocks there). Offsets and len in whole blocks, or len to the end of both files.
 */
must_check int fs_dedupe(struct fs *fs, uint64_t src, uint64_t src_off, uint64_t dst, uint64_t dst_off,
			 uint64_t len, bool *same);

#define FS_EXTENT_UNWRITTEN 0x1u
#define FS_EXTENT_SHARED 0x2u
#define FS_EXTENT_INLINE 0x4u
#define FS_EXTENT_LAST 0x8u
#define FS_EXTENT_BAD 0x10u /* fs_map_files(): in bad memory that the file could not leave */
struct fs_extent {
	uint64_t file_off, dev_off, len; /* bytes */
	uint32_t flags;
	uint32_t owners;
};
/* Extents from byte off on, at most max of them, split where the number of owners changes; returns how many. */
must_check int fs_map(struct fs *fs, uint64_t ino, uint64_t off, struct fs_extent *extents, unsigned max);
/* The same; of blocks in bad memory that stay owners are files alone. Such a one is not to be stored to in place, even if it is not SHARED here. */
must_check int fs_map_files(struct fs *fs, uint64_t ino, uint64_t off, struct fs_extent *extents,
			    unsigned max);

/* A new file name in dir_dst that is a clone of inode src with its attributes (umbractl clone); many in one transaction where they fit. */
struct fs_clone_item {
	uint64_t src;
	const char *name; /* in dir */
	size_t name_len;
	uint64_t new_ino; /* out */
};
must_check int fs_clone_files(struct fs *fs, const struct fs_cred *cred, uint64_t dir,
			      struct fs_clone_item *items, unsigned count, unsigned *done);

/* ---- attributes ---- */

/* flags: XATTR_CREATE, XATTR_REPLACE. acl_kill_sgid: FUSE_SETXATTR_ACL_KILL_SGID. Names with their prefix (user. trusted. security. system.posix_acl_*). */
must_check int fs_setxattr(struct fs *fs, uint64_t ino, const char *name, const void *value,
			   size_t size_bytes, int flags, bool acl_kill_sgid);
/* Size, or with size_bytes != 0 the value; -ERANGE, -ENODATA. */
must_check ssize_t fs_getxattr(struct fs *fs, uint64_t ino, const char *name, void *value, size_t size_bytes);
must_check ssize_t fs_listxattr(struct fs *fs, uint64_t ino, char *list, size_t size_bytes);
must_check int fs_removexattr(struct fs *fs, uint64_t ino, const char *name);

/* ---- whole file system ---- */

struct fs_statfs {
	uint64_t total_blk, free_blk, total_inodes, free_inodes;
};
must_check int fs_statfs(struct fs *fs, struct fs_statfs *st);

/* A path of the inode from the root, by its first parent; '/' for the root. -ENOENT: it has no name (unlinked). -ENAMETOOLONG. */
must_check int fs_path(struct fs *fs, uint64_t ino, char *buf, size_t size_bytes);

/* ---- bad memory ---- */

enum fs_poison_kind {
	FS_POISON_DATA,   /* a file's block was moved; lost_lines of it are gone, or zeroes if zeroed */
	FS_POISON_FREE,   /* it was nobody's, and is taken out of use */
	FS_POISON_PASSED, /* it can be read again */
	FS_POISON_META, /* of the file system itself: one copy, and it has been made good; nothing is lost */
};
struct fs_poison {
	enum fs_poison_kind kind;
	uint64_t dev_off;
	uint64_t ino, file_off; /* of the block in the file */
	uint64_t lost_lines;    /* bit i: 64-byte line i of the block is lost; 0: nothing is */
	bool zeroed;            /* as the file's user.umbra.on_poison wants it: no loss is recorded */
	bool moved; /* FS_POISON_META: to another block; false: it was written anew in its place */
};
/* Called for each owner, once it is durable, by the thread that met the bad memory, with no transaction open. It must not read files. */
typedef void (*fs_poison_fn)(void *arg, const struct fs_poison *event);
/* Whoever listens first hears at once of owners that fs_open() has seen to: what a crash had broken off. */
void fs_on_poison(struct fs *fs, fs_poison_fn fn, void *arg);
/* Called around each wait for those who map a file, by the thread that waits, which holds nothing: it may last for seconds. NULL: nobody any more. */
typedef void (*fs_wait_fn)(void *arg, bool begins);
void fs_on_wait(struct fs *fs, fs_wait_fn fn, void *arg);
/* Somebody says that memory is bad in a range (any bytes): what of it cannot be read is seen to. For a thread that holds nothing. */
void fs_poison_look(struct fs *fs, uint64_t dev_off, uint64_t len);
/* The block at dev_off is taken out of use whether it can be read or not; what can be saved of it is. -EINVAL, -ENOSPC, -EROFS, -EIO;
 * -EOPNOTSUPP: it is of the superblock or the journal, written anew where it is. -EINPROGRESS: files have it that cannot leave it now (no space);
 * it is out of use as soon as they do, or go. -EBUSY: its owners change, or are on their way to it. */
must_check int fs_poison_add(struct fs *fs, uint64_t dev_off);
/*
 * The same for a block in the device's list of bad memory; then the device is asked to clear it. -EINPROGRESS: what can be done now has been, and the rest will be: there
 * is nothing to try again.
 */
must_check int fs_poison_listed(struct fs *fs, uint64_t dev_off);

/* What has become of a block that was to be given back to use. */
enum fs_poison_result {
	FS_POISON_FREED = 1, /* it can be read and written, and is free; or read, and is its files' alone */
	FS_POISON_NOT_BAD,   /* it is not out of use */
	FS_POISON_IN_USE,    /* it is bad, but somebody still has it */
	FS_POISON_STILL_BAD, /* it cannot be read and written */
	FS_POISON_CANNOT_CLEAR, /* there is no device that could clear it */
	FS_POISON_NOT_CLEARED,  /* the device did not */
};
/*
 * A block that is out of use since its memory is bad becomes free, if it can be read and written; by_device: after its device has cleared it. For a
 * thread that holds nothing. -EINVAL, -EROFS, -EIO, -ENOSPC ...: it stays as it is.
 */
must_check int fs_poison_clear(struct fs *fs, uint64_t dev_off, bool by_device,
			       enum fs_poison_result *result);

/*
 * Puts back what the file has lost in the block at file_off, from a copy of the whole block (zeroes past the end of the file). *healed: how many
 * places had lost it, this one and those that share the block; those who cannot be looked at, since they are damaged, are passed over and named.
 * -ENODATA: nothing of it is lost. -EBADMSG: what can be read of the block is not what the copy has. -EBUSY: the block is on its way elsewhere just
 * now.
 */
#define FS_HEAL_NAMED 8u
struct fs_healed {
	unsigned count, damaged;
	uint64_t damaged_inos[FS_HEAL_NAMED]; /* the first ones of them */
};
must_check int fs_heal(struct fs *fs, uint64_t ino, uint64_t file_off, const void *block,
		       struct fs_healed *healed);

struct fs_losses_pos {
	uint32_t agno;
	uint64_t ino, blk;
};
struct fs_loss {
	uint64_t ino, file_off; /* of the block */
	uint64_t lost_lines;    /* bit i: 64-byte line i of it */
	int64_t since_s;
	struct fs_losses_pos after; /* to go on behind it */
};
/* What files have lost, from a position on (zeroes: the first), at most max; *count 0: no more. Not a snapshot. */
must_check int fs_losses(struct fs *fs, const struct fs_losses_pos *pos, struct fs_loss *losses, unsigned max,
			 unsigned *count);

/* Those of one block, 0: none. file_off is of the block. -ESTALE. */
must_check int fs_lost_lines(struct fs *fs, uint64_t ino, uint64_t file_off, uint64_t *lost_lines);

/* What bad memory has done that is still so. */
struct fs_damage {
	uint64_t lost_files, lost_blk, lost_bytes; /* recorded losses */
	uint64_t bad_blk;                          /* out of use; walks all owners if that has changed */
};
must_check int fs_damage(struct fs *fs, struct fs_damage *damage);

/* ---- emptying a range of the device ---- */

struct fs_evacuation {
	uint64_t id;           /* out, of fs_evacuate(): for the calls after it */
	uint64_t dev_off, len; /* in: any bytes; out: whole blocks, as far as the pool goes */
	bool mark_bad;         /* in: in the end nobody is given blocks of it, over mounts too */
	/* out: */
	uint64_t needed_bytes, free_bytes;             /* to move to; free outside of the range */
	uint64_t needed_chunks, free_chunks;           /* of them whole ones, for metadata */
	uint64_t total_bytes;                          /* what can move, when it began */
	uint64_t data_bytes, shared_bytes, meta_bytes; /* moved so far */
	uint64_t left_bytes; /* cannot move: superblock, fixed units of groups, damaged files */
};
/*
 * Begins to move all out of a range: data of files, metadata, journal. Nothing is handed out of it from then on. In place of one that was begun before. -ENOSPC: there
 * is too little space elsewhere, nothing is done; *e says how much. -EINVAL: the range is empty, or past the end. -EROFS, -EIO, -ENOMEM.
 */
must_check int fs_evacuate(struct fs *fs, struct fs_evacuation *e);
/*
 * Moves about max_bytes more; *e as above. 1: there is more. 0: nothing is left but left_bytes; now the range can be used again, or belongs to OWNER_BAD.
 * An error ends it too; what was moved stays so. -ECANCELED: it is not under way any more. For a thread that holds nothing, as the others.
 */
must_check int fs_evacuate_step(struct fs *fs, uint64_t id, uint64_t max_bytes, struct fs_evacuation *e);
/* Ends it as it is. */
void fs_evacuate_stop(struct fs *fs, uint64_t id);

/* In-core inodes (stats), references included. */
uint64_t fs_cached_inodes(const struct fs *fs);

#endif
